"""`make demo`: a Kubernetes on this machine, the operator, and a real model that goes through two stages by `kubectl apply`.

    a cluster         a control plane and a node of this machine, or the current context (CLUSTER=current)
    the platform      what a platform team does once: the chart's objects, a runtime, a namespace with Pod Security `restricted`
    the data          a claim with the model and the rows
    the job           kubectl apply -f examples/domain-then-task.yaml, followed until it ends

Every step finds what an earlier run left and goes on from there. Exit code 0 says that the job succeeded.
"""

from __future__ import annotations

import os
import sys

from scripts.demo import follow, platform
from scripts.demo.place import Place, current_context, own_cluster
from scripts.demo_assets import demo_folder
from tests.cluster.errors import ClusterError

INTRODUCTION = """\
The whole product, {where}:
  1. cluster    etcd, the API server, its controllers, a kubelet with containerd   half a minute; the first time about 20, to build them
  2. platform   the operator by its chart, a runtime, a namespace with Pod Security restricted
  3. data       a claim with SmolLM2-135M-Instruct and the text
  4. job        kubectl apply; its pods prepare the data, measure the base model, train a domain and then a task, and measure after each
The job takes {job}. Ctrl-C leaves it running: `make demo` follows it again, {end}.
"""
OWN = ("on this machine", "ten minutes on two idle cores, longer on busy ones", "`make demo-down` ends all of it")
CURRENT = (
    "in the cluster of kubectl's current context",
    "as long as its nodes need",
    "`kubectl delete namespace finetune-demo` removes the job",
)


def main() -> int:
    """Say what will happen, and let it happen."""
    current = os.environ.get("CLUSTER") == "current"
    if not current and os.environ.get("CLUSTER"):
        print("CLUSTER is either current (kubectl's current context) or not set (a cluster of its own)", file=sys.stderr)
        return 2
    where, job, end = CURRENT if current else OWN
    print(INTRODUCTION.format(where=where, job=job, end=end), flush=True)
    try:
        assets = demo_folder()
        place = current_context() if current else own_cluster()
        return run(place, assets)
    except ClusterError as error:
        print(f"\n{error}", file=sys.stderr)
        if not current:
            print("Without a cluster: make demo-local", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nleft as it is; go on with `make demo`; {end}", file=sys.stderr)
        return 130


def run(place: Place, assets: os.PathLike[str], manifest: str = follow.MANIFEST) -> int:
    """Set the platform up, submit the job, follow it to its end, and show what came of it."""
    platform.install(place)
    platform.give_data(place, assets)
    follow.submit(place, manifest)
    return follow.to_its_end(place)


if __name__ == "__main__":
    sys.exit(main())
