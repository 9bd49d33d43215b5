"""The tier of real pods: containerd, kubelet and kube-proxy on this machine. All of it goes to one worker (tests/conftest.py)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from scripts.demo_assets import ROOT
from tests.cluster import Cluster, Wanted, busybox
from tests.cluster.images import Images, ensure_images
from tests.cluster.namespaces import fresh_namespace
from tests.failures.choice import POD_SEED, chosen
from tests.node.commands import Person
from tests.node.life import Life, live
from tests.node.platform import Platform, install
from tests.node.reference import Expected

SEEDED: Final = "test_failures_tried.py"
"""Of its tests a session takes some."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            # The first one of a session also waits for images that may have to be built.
            item.add_marker(pytest.mark.timeout(2400))
    seeded = [item for item in items if item.path == Path(__file__).with_name(SEEDED)]
    taken = chosen({item.nodeid: item.callspec.params["failure"].cost for item in seeded}, os.environ[POD_SEED])  # type: ignore[attr-defined]
    if not config.option.keyword:
        left = [item for item in seeded if item.nodeid not in taken and item.nodeid not in config.args]
        items[:] = [item for item in items if item not in left]
        config.hook.pytest_deselected(items=left)


@pytest.fixture(scope="session")
def images() -> Images:
    """The images of this checkout, built where they are older than it."""
    return ensure_images()


@pytest.fixture(scope="session")
def node_cluster(images: Images, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two real nodes with two GPUs each (counted, not there) and the images; the CRDs of `crds/` are there, the operator is not."""
    definitions = sorted((ROOT / "crds").glob("*.yaml"))
    wanted = Wanted(kwok_nodes=0, real_nodes=2, gpus=2, definitions=definitions, seed=images.seed)
    with Cluster.up(tmp_path_factory.mktemp("cluster"), wanted) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def installed(node_cluster: Cluster, images: Images) -> Platform:
    """The chart with the operator's pod, runtimes, and a team's namespace with a model and rows; for all tests."""
    return install(node_cluster, images)


@pytest.fixture(scope="session")
def expected(installed: Platform) -> Expected:
    """What the job of this tier comes to without a cluster."""
    return Expected(installed)


@pytest.fixture(scope="session")
def person(installed: Platform, tmp_path_factory: pytest.TempPathFactory) -> Person:
    """Somebody who works by commands."""
    return Person(installed, tmp_path_factory.mktemp("shell"))


@pytest.fixture(scope="session")
def followed(installed: Platform, person: Person) -> Life:
    """A job that was followed by commands from its beginning to its end."""
    installed.await_order()
    return live(installed, person)


@pytest.fixture
def platform(installed: Platform) -> Platform:
    """The same, in order again whatever the test before has done to it."""
    installed.await_order()
    return installed


@pytest.fixture(scope="session")
def shell(node_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> str:
    """By digest, an image on every node with busybox's shell and commands."""
    archive = busybox.build(tmp_path_factory.mktemp("shell") / "image", "finetune.test/shell:1", ["/bin/sh", "-c"])
    return node_cluster.import_image(archive, "finetune.test/shell")


@pytest.fixture
def namespace(node_cluster: Cluster) -> Iterator[str]:
    """The name of a new namespace that enforces Pod Security `restricted`; its deletion is asked for at the end, not awaited."""
    with fresh_namespace(node_cluster) as name:
        yield name
