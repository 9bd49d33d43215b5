"""`python -m tests.failures [NAME...]`: try every failure (or some), print the table, and write the page of the docs."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from scripts.demo_assets import ROOT
from tests.apiserver.trouble import Scene, scene
from tests.cluster import Cluster, Wanted
from tests.cluster.api import ApiError
from tests.cluster.errors import ClusterError
from tests.cluster.images import ensure_images
from tests.failures.base import Failure, Level, Told, shortfalls
from tests.failures.catalogue import CATALOGUE, SHARE
from tests.failures.cluster_failures import ClusterFailure
from tests.failures.ground import Ground, Shared, await_server, shared
from tests.failures.manifest_failures import ManifestFailure
from tests.failures.page import PAGE, page
from tests.failures.pod_failure import PodFailure
from tests.failures.run_failure import RunFailure
from tests.failures.site import site
from tests.failures.trials import try_cluster, try_manifest, try_pod, try_run
from tests.node.platform import Platform, install


class Stages:
    """What failures are tried on, made when the first one needs it."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self._folder, self._stack = folder, stack
        self._shared: Shared | None = None
        self._scene: Scene | None = None
        self._platform: Platform | None = None

    def told(self, failure: Failure) -> Told:
        if isinstance(failure, ManifestFailure):
            return try_manifest(failure)
        if isinstance(failure, RunFailure):
            if self._shared is None:
                self._shared = self._stack.enter_context(shared(self._folder))
                await_server(self._shared)
            (self._folder / failure.name).mkdir()
            return try_run(failure, Ground(self._folder / failure.name, self._shared))
        if isinstance(failure, ClusterFailure):
            if self._scene is None:
                self._scene = self._stack.enter_context(scene(self._cluster("kwok", kwok_nodes=3)))
            return try_cluster(failure, self._scene)
        assert isinstance(failure, PodFailure)
        if self._platform is None:
            images = ensure_images()
            self._platform = install(self._cluster("nodes", kwok_nodes=0, real_nodes=2, gpus=2, seed=images.seed), images)
        self._platform.await_order()
        with site(self._platform) as place:
            return try_pod(failure, place)

    def _cluster(self, name: str, **wanted: Any) -> Cluster:
        definitions = sorted((ROOT / "crds").glob("*.yaml"))
        return self._stack.enter_context(Cluster.up(self._folder / name, Wanted(definitions=definitions, **wanted)))


def tried(failures: list[Failure]) -> Iterator[tuple[Failure, list[str]]]:
    """Each failure, and in what it was told or mended badly."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        stages = Stages(Path(folder), stack)
        for failure in failures:
            try:
                yield failure, shortfalls(failure, stages.told(failure))
            except (AssertionError, ApiError, ClusterError) as error:
                yield failure, [str(error)]


def main(names: list[str]) -> int:
    chosen = [each for each in CATALOGUE if not names or each.name in names]
    fallen: list[str] = []
    print(f"{'layer':<9} {'level':<9} {'failure':<32} {'reason':<24} fixed?  place → hint")
    for failure, short in tried(sorted(chosen, key=lambda each: list(Level).index(each.level))):
        verdict = "no" if short else "yes"
        line = f"{failure.layer:<9} {failure.level:<9} {failure.name:<32} {failure.reason:<24} {verdict:<7}"
        print(f"{line} {failure.place} → {failure.hint}", flush=True)
        for each in short:
            print(f"    {each}", flush=True)
        if short:
            fallen.append(failure.name)
    share = 1 - len(fallen) / len(chosen)
    print(
        f"{len(chosen) - len(fallen)} of {len(chosen)} ({share:.1%}) end with the right reason, the place, a hint, and pass when it was followed"
    )
    if not names:
        PAGE.write_text(page(CATALOGUE, fallen))
    return 0 if share >= SHARE else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
