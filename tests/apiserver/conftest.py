"""The tier between pure tests and real pods: a real control plane, its scheduler and controllers, and nodes by kwok; one for each worker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from scripts.demo_assets import ROOT
from tests.apiserver.trouble import Scene, scene
from tests.cluster import Cluster, Wanted
from tests.cluster.namespaces import fresh_namespace


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two kwok nodes of 8 GPUs, one without; the CRDs of `crds/` are there, the operator is not."""
    definitions = sorted((ROOT / "crds").glob("*.yaml"))
    with Cluster.up(tmp_path_factory.mktemp("cluster"), Wanted(kwok_nodes=3, definitions=definitions)) as cluster:
        yield cluster


@pytest.fixture
def namespace(control_plane: Cluster) -> Iterator[str]:
    """The name of a new namespace that enforces Pod Security `restricted`; its deletion is asked for at the end, not awaited."""
    with fresh_namespace(control_plane) as name:
        yield name


@pytest.fixture(scope="module")
def stage(control_plane: Cluster) -> Iterator[Scene]:
    """A namespace with storage, the operator and a hand that plays the kubelet, for all tests of a module: each has jobs of its own."""
    with scene(control_plane) as made:
        yield made


@pytest.fixture
def own_stage(control_plane: Cluster) -> Iterator[Scene]:
    """The same for one test, which does something to the whole namespace, its runtime or its operator."""
    with scene(control_plane) as made:
        yield made
