"""`python -m tests.cluster up|down|status`: a whole Kubernetes on this machine, without a container engine or a registry."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

from scripts.demo_assets import ROOT
from tests.cluster import slots
from tests.cluster.bringup import Wanted
from tests.cluster.cluster import Cluster
from tests.cluster.errors import ClusterError
from tests.cluster.node import ready
from tests.cluster.teardown import take_down

DEFAULT_FOLDER = ROOT / ".cache/cluster"


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    verbs = top.add_subparsers(dest="verb", required=True)
    up = verbs.add_parser("up", help="bring up a cluster, and leave it running")
    kind = up.add_mutually_exclusive_group()
    kind.add_argument("--control-plane", action="store_true", help="no nodes: pods stay Pending")
    kind.add_argument(
        "--kwok", type=int, default=3, metavar="N", help="N nodes without machines (the default: 3); the last one has no GPUs"
    )
    kind.add_argument("--node", action="store_const", const=1, default=0, help="a real node, whose pods really run; needs root")
    kind.add_argument("--nodes", type=int, dest="node", metavar="N", help="N real nodes on this machine")
    up.add_argument("--gpus", type=int, default=8, metavar="N", help="nvidia.com/gpu of each node (8)")
    up.add_argument("--fsync", action="store_true", help="etcd writes through, as in production: for figures about writes")
    down = verbs.add_parser("down", help="end it, and remove all but its logs")
    status = verbs.add_parser("status", help="list the clusters of this machine, their programs and nodes")
    for verb in (up, down):
        verb.add_argument("folder", type=Path, nargs="?", default=DEFAULT_FOLDER, help=f"the cluster's folder ({DEFAULT_FOLDER})")
    status.add_argument("folder", type=Path, nargs="?", help="only this one, with its programs and nodes")
    return top


def main(arguments: list[str]) -> int:
    options = parser().parse_args(arguments)
    try:
        if options.verb == "up":
            up(options)
        elif options.verb == "down":
            down(options.folder.resolve())
        else:
            status(options.folder)
    except ClusterError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: what had been started is taken down", file=sys.stderr)
        return 130
    return 0


def up(options: argparse.Namespace) -> None:
    kwok = 0 if options.control_plane or options.node else options.kwok
    wanted = Wanted(
        kwok_nodes=kwok, gpus=options.gpus, real_nodes=options.node, definitions=sorted((ROOT / "crds").glob("*.yaml")), fsync=options.fsync
    )
    Cluster.up(options.folder, wanted, say=sayer()).keep()
    print(f"take it down with: python -m tests.cluster down {options.folder}")


def down(folder: Path) -> None:
    state = slots.State.read(folder)
    if state is None:
        raise ClusterError(f"{folder} holds no cluster. See: python -m tests.cluster status")
    take_down(folder, state.slot)
    print(f"taken down; its logs are in {folder / 'logs'}")


def status(folder: Path | None) -> None:
    found = [(slot, place) for slot, place in slots.held() if folder is None or place == folder.resolve()]
    if not found:
        print("no cluster on this machine" if folder is None else f"no cluster in {folder}")
    for slot, place in found:
        state = slots.State.read(place)
        whose = (
            "left behind"
            if state is None or state.abandoned
            else "until `down`"
            if state.owner is None
            else f"of process {state.owner.pid}"
        )
        print(f"slot {slot}  {place}  ({whose})")
        if state is not None:
            _programs(place)


def _programs(folder: Path) -> None:
    cluster = Cluster.at(folder)
    for name in cluster.processes.names():
        identity = cluster.processes.identity(name)
        print(f"  {name:28} {f'process {identity.pid}' if identity and identity.alive else 'not running'}")
    api = cluster.api
    if cluster.processes.running("kube-apiserver") and api.ready():
        print(f"  {cluster.layout.server}  Kubernetes {api.get('/version')['gitVersion']}  KUBECONFIG={cluster.kubeconfig}")
        for node in api.items("/api/v1/nodes"):
            capacity = node["status"]["capacity"]
            state = "Ready" if ready(node) else "NotReady"
            print(f"  {node['metadata']['name']:28} {state:9} {capacity['cpu']} CPUs, {capacity.get('nvidia.com/gpu', 0)} GPUs")


def sayer() -> Callable[[str], None]:
    """Prints each line with the seconds since the start."""
    began = time.monotonic()
    return lambda text: print(f"{time.monotonic() - began:5.1f} s  {text}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
