"""Trouble that only a kubelet and a kernel can make: each job says what it waits for, or why it failed and what to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import pytest

from tests.apiserver.installation import apply
from tests.builders import edited
from tests.cluster.api import Object
from tests.cluster.images import Images
from tests.node.jobs import Job, manifest
from tests.node.platform import TEAM, Platform, runtime

NOWHERE: Final = "localhost/finetune-nothing@sha256:" + "0" * 64
Spec = Mapping[str, Any]

RUNTIMES: Final[Mapping[str, Callable[[Images], Spec]]] = {
    "image-missing": lambda images: {"image": NOWHERE, "imagePullPolicy": "IfNotPresent"},
    "no-trainer": lambda images: {"image": images.operator.reference},
    "little-memory": lambda images: {"resources": {"train": {"requests": {"memory": "48Mi"}, "limits": {"memory": "48Mi"}}}},
    "little-room": lambda images: {
        "storage": {"claimTemplate": {"className": "tmpfs", "accessMode": "ReadWriteOnce", "size": "1Mi"}},
    },
}
"""Runtimes with one fault, by the name that their job has too."""

HUB: Final = {"spec.model": {"uri": "hf://owner/model", "revision": "0" * 40, "credentials": "hub"}}
JOBS: Final[Mapping[str, Spec]] = {
    **{name: {"spec.runtimeRef": {"name": name}, "spec.retry": {"maxAttempts": 1}} for name in RUNTIMES},
    "secret-missing": {**HUB, "spec.references.secrets": [{"name": "hub", "secretName": "not-there"}]},
    "key-missing": {**HUB, "spec.references.secrets": [{"name": "hub", "secretName": "without-token"}]},
}

WAITING: Final = [
    # the job, why it does not run, what the message names
    ("image-missing", "ImageUnavailable", NOWHERE),
    ("secret-missing", "SecretMissing", "not-there"),
    ("key-missing", "SecretKeyMissing", "token"),
]
FAILED: Final = [
    # the job, the reason, the exit code, what the message says, what the last lines of the log say
    ("no-trainer", "UnknownExit", 2, "left no message", "there is no such flag"),
    ("little-memory", "MemoryLimitExceeded", 137, "memory limit", ""),
    ("little-room", "StorageFull", 30, "no space left", ""),
]


@pytest.fixture(scope="module")
def troubled(installed: Platform) -> dict[str, Job]:
    """All of them at once, by name: each waits more than it works."""
    installed.await_order()
    api = installed.cluster.api
    apply(
        api, {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "without-token", "namespace": TEAM}, "stringData": {"other": "x"}}
    )
    for name, spec in RUNTIMES.items():
        made = runtime(name, installed.images.trainer)
        apply(api, {**made, "spec": {**made["spec"], **spec(installed.images)}})
    return {name: Job.submit(installed, document(name)) for name in JOBS}


def document(name: str) -> Object:
    """Two steps of full training: a checkpoint of them is larger than a mebibyte."""
    return edited(manifest(name, steps=2), {"spec.stages[0].method": {"type": "full"}, "spec.stages[0].handOver": "continue", **JOBS[name]})


@pytest.mark.parametrize(("name", "reason", "named"), WAITING)
def test_what_a_pod_waits_for_is_told(troubled: dict[str, Job], name: str, reason: str, named: str) -> None:
    job = troubled[name]
    job.await_running_reason(reason)
    condition = job.condition("Running")
    assert condition["status"] == "False"
    assert named in condition["message"]
    assert "attempts" not in job.status() or all("finishedAt" not in each for each in job.status()["attempts"])
    uid = job.uid
    job.delete()
    job.await_gone(uid)


@pytest.mark.parametrize(("name", "reason", "code", "says", "logged"), FAILED)
def test_why_a_pod_failed_is_told(troubled: dict[str, Job], name: str, reason: str, code: int, says: str, logged: str) -> None:
    job = troubled[name]
    failure = job.await_failure()
    assert (failure["reason"], failure["exitCode"]) == (reason, code)
    assert says in failure["message"]
    assert failure["hint"]
    assert logged in "\n".join(failure.get("lastLogLines", []))
    conditions = {each["type"]: (each["status"], each["reason"]) for each in job.status()["conditions"]}
    assert conditions["Failed"] == conditions["Finished"] == conditions["Stalled"] == ("True", reason)
    job.delete()
