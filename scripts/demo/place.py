"""Where the demo runs, and which images its pods use."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from scripts.demo_assets import ROOT
from tests.cluster import Cluster, Wanted, binaries
from tests.cluster.errors import ClusterError
from tests.cluster.images import ensure_images

FOLDER: Final = ROOT / ".cache/demo-cluster"


@dataclass(frozen=True)
class Place:
    """A cluster that kubectl reaches, and images that its nodes can run."""

    trainer: str
    """By digest, as a runtime names it."""
    operator: str
    kubeconfig: Path | None = None
    """None: kubectl's current context."""
    cluster: Cluster | None = None
    """The demo's own."""
    began: float = field(default_factory=time.monotonic)

    def say(self, text: str) -> None:
        """Print a line with the seconds since the start."""
        print(f"{time.monotonic() - self.began:6.1f} s  {text}", flush=True)

    def command(self, *arguments: str) -> list[str]:
        """The command line of kubectl, for this cluster."""
        chosen = ["--kubeconfig", str(self.kubeconfig)] if self.kubeconfig else []
        return [str(binaries.resolve("kubectl")), *chosen, *arguments]

    def kubectl(self, *arguments: str, given: str | None = None) -> str:
        """What kubectl prints. Raises ClusterError with what it complained about."""
        done = subprocess.run(self.command(*arguments), input=given, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ClusterError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def apply(self, *documents: dict[str, Any]) -> None:
        """Server-side apply, so that a second run changes nothing."""
        self.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", given=yaml.safe_dump_all(documents))

    def get(self, *arguments: str) -> Any:
        """One object, or None where it is not there."""
        text = self.kubectl("get", *arguments, "--ignore-not-found", "-o", "yaml")
        return yaml.safe_load(text) if text.strip() else None


def own_cluster() -> Place:
    """The demo's cluster: the one that an earlier run left, or a new one with a node that holds the images."""
    began = time.monotonic()
    say = _sayer(began)
    images = ensure_images(say=say)
    cluster = _running()
    if cluster is None:
        wanted = Wanted(kwok_nodes=0, real_nodes=1, gpus=0, definitions=sorted((ROOT / "crds").glob("*.yaml")), seed=images.seed)
        cluster = Cluster.up(FOLDER, wanted, say=say)
        cluster.keep()
    else:
        say(f"the cluster in {FOLDER.relative_to(ROOT)} goes on")
    return Place(images.trainer.reference, images.operator.reference, cluster.kubeconfig, cluster, began)


def current_context() -> Place:
    """The cluster of the current context, which has to be able to pull the images."""
    missing = [name for name in ("TRAINER_IMAGE", "OPERATOR_IMAGE") if "@sha256:" not in os.environ.get(name, "")]
    if missing:
        raise ClusterError(
            f"{' and '.join(missing)} must name an image by digest (REPOSITORY@sha256:…) that the cluster can pull:\n"
            "docs/how-to/build-images.md says how to build and push them"
        )
    return Place(os.environ["TRAINER_IMAGE"], os.environ["OPERATOR_IMAGE"])


def _running() -> Cluster | None:
    try:
        cluster = Cluster.at(FOLDER)
        return cluster if cluster.processes.running("kube-apiserver") and cluster.api.ready() else None
    except ClusterError:
        return None


def _sayer(began: float) -> Callable[[str], None]:
    return lambda text: print(f"{time.monotonic() - began:6.1f} s  {text}", flush=True)
