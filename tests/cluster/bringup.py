"""The order in which a cluster comes up, top to bottom: each step waits for what the next one needs."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.demo_assets import ROOT
from tests.cluster import busybox, control_plane, kwok, mounts, network
from tests.cluster.node import Node, ready
from tests.cluster.node_files import PAUSE

if TYPE_CHECKING:
    from tests.cluster.cluster import Cluster

Say = Callable[[str], None]
START_SECONDS = 240


@dataclass(frozen=True)
class Wanted:
    """What a cluster is to be made of."""

    kwok_nodes: int = 3
    gpus: int = 8
    """Of each node but the last kwok node, which has none."""
    real_nodes: int = 0
    definitions: Sequence[Path] = ()
    """Manifests of CRDs: applied before the controllers start, so that their garbage collector knows them from the start."""
    fsync: bool = False
    """etcd writes through: for figures about writes."""
    seed: Callable[[Path], None] | None = None
    """Fills the containerd root of each real node before it starts: `Images.seed`."""


def needed(wanted: Wanted) -> list[str]:
    """Names of the programs that such a cluster runs."""
    plane = ["kubectl", "etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"]
    return plane + ["kwok"] * bool(wanted.kwok_nodes) + ["kubelet", "kube-proxy"] * bool(wanted.real_nodes)


def start(cluster: Cluster, wanted: Wanted, programs: Mapping[str, Path], say: Say) -> None:
    """Everything, until it is ready. Raises ClusterError with the last lines of the log of what did not start."""
    began = time.monotonic()
    layout, processes = cluster.layout, cluster.processes
    say(f"cluster {layout.name} in {cluster.folder}: etcd and the API server")
    control_plane.write_files(layout)
    if layout.routed:
        network.make_bridge(layout)
        mounts.share(layout.volumes)
    processes.start("etcd", [programs["etcd"], *control_plane.etcd(layout, fsync=wanted.fsync)])
    processes.start("kube-apiserver", [programs["kube-apiserver"], *control_plane.apiserver(layout)])
    cluster.await_api_server()
    if wanted.definitions:
        say(f"{len(wanted.definitions)} CRDs")
        cluster.apply(*wanted.definitions)
    say("controller manager, scheduler and storage")
    for name in ("kube-controller-manager", "kube-scheduler"):
        processes.start(name, [programs[name], *control_plane.PROGRAMS[name](layout)])
    _storage(cluster)
    if wanted.kwok_nodes:
        _fake_nodes(cluster, wanted, programs["kwok"], say)
    if wanted.real_nodes:
        _real_nodes(cluster, wanted, programs, say)
    say(f"ready after {time.monotonic() - began:.0f} s: export KUBECONFIG={cluster.kubeconfig}")


def _storage(cluster: Cluster) -> None:
    command = [sys.executable, "-m", "tests.cluster.provisioner", str(cluster.folder)]
    cluster.processes.start("provisioner", command, env={"PYTHONPATH": str(ROOT)})
    last = "/apis/storage.k8s.io/v1/storageclasses/tmpfs"
    cluster.processes.wait(
        "provisioner", lambda: cluster.api.find(last) is not None, what="the storage classes being there", timeout=START_SECONDS
    )


def _fake_nodes(cluster: Cluster, wanted: Wanted, program: Path, say: Say) -> None:
    say(f"{wanted.kwok_nodes} kwok nodes")
    stages = cluster.layout.configuration / "kwok.yaml"
    stages.write_text(kwok.stages())
    for number in range(1, wanted.kwok_nodes + 1):
        last = number == wanted.kwok_nodes > 1
        cluster.api.post("/api/v1/nodes", kwok.node(number, 0 if last else wanted.gpus))
    cluster.processes.start("kwok", kwok.command(program, cluster.kubeconfig, stages))
    cluster.processes.wait(
        "kwok", lambda: all(map(ready, cluster.api.items("/api/v1/nodes"))), what="every node being Ready", timeout=START_SECONDS
    )


def _real_nodes(cluster: Cluster, wanted: Wanted, programs: Mapping[str, Path], say: Say) -> None:
    say("the sandbox image")
    pause = busybox.build(cluster.folder / "sandbox", PAUSE, ["/bin/sleep", "2147483647"])
    plans = [cluster.layout.node(index) for index in range(1, wanted.real_nodes + 1)]
    for plan in plans:
        say(f"{plan.name}: containerd, kubelet and kube-proxy")
        node = Node(cluster.layout, plan, cluster.processes, cluster.api)
        node.start(programs, pause, plans[: plan.index - 1], wanted.seed)
        node.set_gpus(wanted.gpus)
