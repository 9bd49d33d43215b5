"""`python -m tests.node.comparison [ASSETS]`: how long the demo's job takes by `kubectl apply`, beside `finetune run` in the same image on the same node.

A figure, not a test: it needs a machine that does nothing else. Exit code 1 says that the operator's way took more than 1.3 times as long.
"""

from __future__ import annotations

import sys
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import yaml

from scripts.demo import platform
from scripts.demo.follow import HOURS, MANIFEST, NAME
from scripts.demo.place import Place
from scripts.demo_assets import ROOT, demo_folder
from tests.cluster import Cluster, Wanted
from tests.cluster.images import ensure_images
from tests.node.reference import pod

MOST: Final = 1.3
BY_HAND: Final = "by-hand"
SCRIPT: Final = 'printf %s "$JOB" | python -m finetune_cli run - --mount demo=/data --run-folder /tmp/run --threads {threads} --quiet'


def main(assets: Path) -> int:
    images = ensure_images()
    with tempfile.TemporaryDirectory(prefix="compare-") as folder:
        definitions = sorted((ROOT / "crds").glob("*.yaml"))
        wanted = Wanted(kwok_nodes=0, real_nodes=1, gpus=0, definitions=definitions, seed=images.seed)
        with Cluster.up(Path(folder) / "cluster", wanted) as cluster:
            place = Place(images.trainer.reference, images.operator.reference, cluster.kubeconfig, cluster)
            platform.install(place)
            platform.give_data(place, assets)
            by_hand, applied = run_by_hand(place), apply(place)
    ratio = applied / by_hand
    print(
        f"finetune run in the image  {by_hand:7.1f} s\nkubectl apply to Succeeded {applied:7.1f} s\nratio                      {ratio:7.2f}"
    )
    return 0 if ratio <= MOST else 1


def run_by_hand(place: Place) -> float:
    """Seconds of a pod whose container is `finetune run`, from its start to its end."""
    spec = platform.runtime(place.trainer)["spec"]
    container = {
        "command": ["sh", "-c", SCRIPT.format(threads=spec["threads"])],
        "env": [{"name": "JOB", "value": (ROOT / MANIFEST).read_text()}, {"name": "OMP_NUM_THREADS", "value": str(spec["threads"])}],
        "resources": spec["resources"]["train"],
    }
    made = pod(place.trainer, platform.CLAIM, "/data", container)
    place.apply({"apiVersion": "v1", "kind": "Pod", **made, "metadata": {"name": BY_HAND, "namespace": platform.TEAM}})
    place.say("finetune run")
    ending = "--for=jsonpath={.status.containerStatuses[0].state.terminated.reason}"
    place.kubectl("wait", f"pod/{BY_HAND}", "-n", platform.TEAM, ending, f"--timeout={HOURS}")
    ended = place.get("pod", BY_HAND, "-n", platform.TEAM)["status"]["containerStatuses"][0]["state"]["terminated"]
    if ended["exitCode"]:
        raise SystemExit(place.kubectl("logs", BY_HAND, "-n", platform.TEAM))
    return seconds(ended["startedAt"], ended["finishedAt"])


def apply(place: Place) -> float:
    """Seconds from the job's creation to its condition Complete."""
    place.kubectl("apply", "-n", platform.TEAM, "-f", str(ROOT / MANIFEST))
    place.say("kubectl apply")
    place.kubectl("wait", f"ftj/{NAME}", "-n", platform.TEAM, "--for=condition=Finished", f"--timeout={HOURS}")
    job: dict[str, Any] = place.get("ftj", NAME, "-n", platform.TEAM)
    if job["status"]["phase"] != "Succeeded":
        raise SystemExit(yaml.safe_dump(job["status"]))
    (complete,) = [each for each in job["status"]["conditions"] if each["type"] == "Complete"]
    return seconds(job["metadata"]["creationTimestamp"], complete["lastTransitionTime"])


def seconds(begin: object, end: object) -> float:
    """Between two times of Kubernetes."""
    return (datetime.fromisoformat(str(end)) - datetime.fromisoformat(str(begin))).total_seconds()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else demo_folder()))
