"""Jobs as an API server shows them, for tests of what is printed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from finetune_client.objects import Job

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


def seen(name: str, phase: str = "", *, said: str = "", minutes: float = 5, **status: Any) -> Job:
    """A job in this phase that was made so many minutes before NOW; `said` is the message of its conditions."""
    true = {"Running": "Running", "Succeeded": "Complete", "Failed": "Failed", "Suspended": "Suspended"}.get(phase)
    conditions = [{"type": kind, "status": str(kind == true), "reason": phase, "message": said} for kind in ("Running", true or "Complete")]
    finished = [{"type": "Finished", "status": "True", "reason": phase, "message": said}] if phase in ("Succeeded", "Failed") else []
    stands = {"phase": phase, "conditions": [*conditions, *finished], **status} if phase else {}
    created = (NOW - timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")
    return Job(
        {
            "apiVersion": "finetune.dev/v1alpha1",
            "kind": "FineTuneJob",
            "metadata": {"name": name, "namespace": "team-a", "uid": f"uid-{name}", "creationTimestamp": created, "managedFields": [{}]},
            "spec": {"model": {"uri": "hf://Qwen/Qwen3-0.6B", "revision": "abc"}, "stages": []},
            "status": stands,
        }
    )


RUNNING = seen(
    "support-intents",
    "Running",
    said="attempt 1 trains in pod ft-1 on gpu-3",
    minutes=95,
    currentStage="task",
    progress={"percent": 41, "step": 410, "totalSteps": 1000, "loss": 0.81234, "eta": "1h0m"},
    summary={"stage": "task", "queue": "gpus", "methods": "full+lora"},
    stages=[
        {"name": "domain", "phase": "Succeeded", "metrics": {"eval_loss": 2.5}},
        {"name": "task", "phase": "Running", "checkpoint": {"step": 400, "verified": True}},
    ],
    attempts=[
        {
            "segment": "prepare",
            "number": 1,
            "reason": "Succeeded",
            "startedAt": "2026-11-22T10:26:00Z",
            "finishedAt": "2026-11-22T10:27:05Z",
        },
        {
            "segment": "domain+task",
            "number": 2,
            "node": "gpu-3",
            "startedAt": "2026-11-22T10:27:10Z",
            "resumedFromStep": 200,
            "stepsLost": 12,
        },
    ],
    evaluation=[
        {"suite": "in-domain", "metric": "loss", "baseline": 5.34, "stages": [{"stage": "domain", "value": 3.31}], "gate": "Passed"}
    ],
)
FAILED = seen(
    "nightly",
    "Failed",
    said="row 7 is \x1b[31mred\x1b[0m\u202e",
    minutes=2900,
    failure={
        "reason": "DataInvalid",
        "stage": "task",
        "message": "row 7 is \x1b]0;owned\x07\x1b[31mred\x1b[0m\u202e\nand row 8 too",
        "hint": "Correct what the message lists.",
        "exitCode": 11,
        "lastLogLines": ["  0%|\r 50%|█████\r100%|██████████", "\x9b2Jbye \ud800"],
    },
)
WAITING = seen("waits", "Pending", said="0 of 3 nodes have nvidia.com/gpu free", minutes=31)
NEW = seen("new", minutes=0.1)
DONE = seen(
    "done", "Succeeded", said="published", artifacts=[{"kind": "adapter", "uri": "pvc://runs/a", "sha256": "b" * 64, "bytes": 1536}]
)
