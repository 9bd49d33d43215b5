"""Submit the job as a user does, show what kubectl shows, and tell how it ended."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from finetune_api import constants as c
from finetune_api.v1alpha1.status import FineTuneJobStatus
from finetune_cli.console import Console
from finetune_cli.summary import evaluation_table
from scripts.demo.place import Place
from scripts.demo.platform import TEAM

MANIFEST = "examples/domain-then-task.yaml"
NAME = "domain-then-task"
HOURS = "12h"


def submit(place: Place, manifest: str = MANIFEST) -> None:
    """`kubectl apply`: the same manifest again changes nothing."""
    print(f"\n$ kubectl apply -n {TEAM} -f {manifest}", flush=True)
    print(place.kubectl("apply", "-n", TEAM, "-f", manifest), end="", flush=True)
    place.say("accepted")


def to_its_end(place: Place) -> int:
    """Print the table as it changes until the job has finished, then its end; 0 where it succeeded."""
    print(f"\n$ kubectl get ftj -n {TEAM} -w", flush=True)
    watch = subprocess.Popen(place.command("get", c.SHORT_NAME, "-n", TEAM, "-w"))
    try:
        place.kubectl("wait", "-n", TEAM, "--for=condition=Finished", f"--timeout={HOURS}", f"{c.SHORT_NAME}/{NAME}")
    finally:
        watch.terminate()
        watch.wait()
    document = place.get(c.SHORT_NAME, NAME, "-n", TEAM)
    place.say("finished")
    return tell(document, place)


def tell(document: dict[str, Any], place: Place) -> int:
    """Show conditions, attempts, the evaluation and where the model is, or what failed and what to do."""
    status = FineTuneJobStatus.model_validate(document["status"])
    console = Console(sys.stdout)
    print(f"\n$ kubectl get ftj {NAME} -n {TEAM} -o yaml   (its status, in short)")
    for condition in status.conditions:
        print(f"  {condition.type:12} {condition.status:7} {condition.reason:20} {condition.message}")
    for attempt in status.attempts:
        print(
            f"  attempt {attempt.number} of {attempt.segment}: {attempt.reason or 'running'}, {attempt.started_at} to {attempt.finished_at}"
        )
    if status.evaluation:
        console.print(evaluation_table(status.evaluation, [stage["name"] for stage in document["spec"]["stages"]]))
    if status.failure:
        print(f"{status.failure.reason}: {status.failure.message}\n  → {status.failure.hint}", file=sys.stderr)
        return 1
    for artifact in status.artifacts:
        print(f"  {artifact.kind + ':':<11}{artifact.uri}  sha256 {artifact.sha256[:12]}…  {artifact.bytes / 2**20:,.1f} MiB")
    _where(place, document)
    return 0


def _where(place: Place, document: dict[str, Any]) -> None:
    """On the demo's own cluster, a volume is a folder of this machine."""
    if place.cluster is None:
        return
    uid = document["metadata"]["uid"]
    claims = place.get("pvc", "-n", TEAM, "-l", f"{c.JOB_UID_LABEL}={uid}")["items"]
    for claim in claims:
        volume = place.get("pv", claim["spec"]["volumeName"])
        print(f"  The claim {claim['metadata']['name']} is a folder of this machine: {volume['spec']['local']['path']}/{TEAM}/{NAME}-{uid}")
    print("  The cluster goes on; end it with: make demo-down")
