"""The operator's machinery with the smallest decision that makes one Job and tells how it ends: `python -m tests.apiserver.tiny_operator`.

What the machinery promises is tested with it, apart from what the product decides.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

from finetune_api import constants as c
from finetune_operator.app import run
from finetune_operator.model import Create, Decision, Manifest, Note, Observed, Severity
from finetune_operator.settings import parse


def decide(observed: Observed) -> Decision:
    """One Job for each FineTuneJob, whose `test-cluster/` annotations say how its pod ends."""
    if _ended(observed.job):
        return Decision(status=observed.job["status"])
    if not observed.jobs:
        if observed.refusals:
            refusal = observed.refusals[0]
            said = Note(Severity.WARNING, "Refused", refusal.message)
            return Decision(status=_status(observed, "Failed", finished=True), notes=(said,))
        said = Note(Severity.NORMAL, "Started", "one Job was made")
        return Decision(actions=(Create(batch_job(observed.job)),), status=_status(observed, "Pending"), notes=(said,))
    if any(_has(job, "Complete") for job in observed.jobs):
        said = Note(Severity.NORMAL, "Finished", "the Job is complete")
        return Decision(status=_status(observed, "Succeeded", finished=True), notes=(said,))
    return Decision(status=_status(observed, "Running") if any(_runs(pod) for pod in observed.pods) else observed.job.get("status"))


def job_name(job: Manifest) -> str:
    return f"tiny-{job['metadata']['name']}-{job['metadata']['uid'][:8]}"


def batch_job(job: Manifest) -> dict[str, Any]:
    metadata = job["metadata"]
    labels = {c.MANAGED_LABEL: "true", c.JOB_UID_LABEL: metadata["uid"]}
    container = {
        "name": "trainer",
        "image": "example/none",
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    secure = {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}}
    pod = {"restartPolicy": "Never", "containers": [container], "securityContext": secure}
    ends = {name: value for name, value in (metadata.get("annotations") or {}).items() if name.startswith("test-cluster/")}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": job_name(job),
            "namespace": metadata["namespace"],
            "labels": labels,
            "ownerReferences": [
                {"apiVersion": c.API_VERSION, "kind": c.KIND, "name": metadata["name"], "uid": metadata["uid"], "controller": True}
            ],
        },
        "spec": {"backoffLimit": 0, "template": {"metadata": {"labels": labels, "annotations": ends}, "spec": pod}},
    }


def _status(observed: Observed, phase: str, *, finished: bool = False) -> dict[str, Any]:
    standing = (observed.job.get("status") or {}).get("conditions") or []
    since = next((item["lastTransitionTime"] for item in standing), observed.now.strftime("%Y-%m-%dT%H:%M:%SZ"))
    condition = {
        "type": "Finished",
        "status": "True" if finished else "False",
        "reason": phase,
        "message": phase,
        "lastTransitionTime": since,
    }
    attempts = [{"segment": "only", "number": 1, "job": job_name(observed.job)}]
    return {"observedGeneration": observed.job["metadata"]["generation"], "phase": phase, "conditions": [condition], "attempts": attempts}


def _ended(job: Manifest) -> bool:
    return (job.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def _has(job: Manifest, condition: str) -> bool:
    return any(item["type"] == condition and item["status"] == "True" for item in (job.get("status") or {}).get("conditions") or [])


def _runs(pod: Manifest) -> bool:
    return bool(pod["status"].get("phase") == "Running")


if __name__ == "__main__":
    import logging

    logging.basicConfig(level="INFO", stream=sys.stderr)
    logging.getLogger("kopf.objects").setLevel("WARNING")
    asyncio.run(run(parse(sys.argv[1:], os.environ), decide))
