"""Trouble that ten users meet, as scenes that play until `kubectl describe` shows it: the tests of the tier and the page on troubleshooting share them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from finetune_api.constants import Reason
from tests.apiserver.trouble import Scene
from tests.apiserver.trouble_job import Trial, said
from tests.cluster.pods import await_value, evict

CREDENTIALS: Final[dict[str, Any]] = {
    "spec__references": {"secrets": [{"name": "hub", "secretName": "hub-token"}]},
    "spec__model": {"uri": "hf://team/model", "credentials": "hub"},
}


@dataclass(frozen=True)
class Trouble:
    name: str
    title: str
    do: str
    """What the reader of the page should do."""
    play: Callable[[Scene], Trial]
    whole_namespace: bool = False
    """Whether it needs a namespace of its own."""


def runtime_not_found(stage: Scene) -> Trial:
    trial = stage.trial("no-such-runtime", runtime="gone")
    trial.submit()
    assert "there is no ClusterFineTuneRuntime" in trial.await_refused("RuntimeNotFound")
    return trial


def output_taken(stage: Scene) -> Trial:
    fields: dict[str, Any] = {
        "spec__references": {"claims": [{"name": "models", "claimName": "team-models"}]},
        "spec__output": {"uri": "pvc://models/support"},
    }
    stage.claim("team-models")
    stage.await_bound("team-models")
    first = stage.trial("first-support", **fields)
    first.start()
    trial = stage.trial("second-support", **fields)
    trial.submit()
    assert "the older FineTuneJob first-support writes to pvc://models/support too" in trial.await_refused("OutputTaken")
    return trial


def quota_exceeded(stage: Scene) -> Trial:
    path = f"/api/v1/namespaces/{stage.namespace}/resourcequotas"
    stage.api.post(path, {"metadata": {"name": "few-pods"}, "spec": {"hard": {"pods": "0"}}})
    await_value(lambda: stage.api.get(f"{path}/few-pods").get("status", {}).get("hard"), what="the quota counts", timeout=120)
    trial = stage.trial("over-quota")
    trial.submit()
    # An event of the Job controller says it, and is looked for when a Job has had no pod for some seconds.
    trial.await_that(
        lambda: stage.api.items(f"/api/v1/namespaces/{stage.namespace}/events", fieldSelector="reason=FailedCreate"), "refusal"
    )
    stage.operator.advance(6)
    assert "exceeded quota: few-pods" in trial.await_waiting("QuotaExceeded")
    return trial


def no_gpu(stage: Scene) -> Trial:
    stage.runtime("amd", gpus=1, gpuResourceName="amd.com/gpu")
    trial = stage.trial("no-gpu", runtime="amd")
    trial.submit()
    trial.await_pod(scheduled=False)
    assert "nodes has amd.com/gpu" in trial.await_waiting("GpuUnavailable")
    return trial


def claim_missing(stage: Scene) -> Trial:
    fields: dict[str, Any] = {
        "spec__references": {"claims": [{"name": "data", "claimName": "team-data"}]},
        "spec__stages[0]__data": {"train": [{"uri": "pvc://data/train.jsonl"}]},
    }
    trial = stage.trial("no-claim", **fields)
    trial.submit()
    assert "claim team-data is not there" in trial.await_waiting("ClaimMissing")
    return trial


def image_unavailable(stage: Scene) -> Trial:
    trial = stage.trial("no-image")
    trial.submit()
    refusal = 'failed to pull and unpack image "registry.example.com/trainer": failed to resolve reference: 403 Forbidden'
    stage.puppet.wait(trial.await_pod(), "ImagePullBackOff", f"Back-off pulling image: ErrImagePull: {refusal}")
    assert "can't be pulled" in trial.await_waiting("ImageUnavailable")
    return trial


def secret_missing(stage: Scene) -> Trial:
    trial = stage.trial("no-secret", **CREDENTIALS)
    trial.submit()
    pod = trial.await_pod()
    stage.puppet.event(pod, "FailedMount", 'MountVolume.SetUp failed for volume "secret-0" : secret "hub-token" not found')
    stage.operator.advance(6)
    assert "Secret hub-token is not there" in trial.await_waiting("SecretMissing")
    return trial


def bad_data(stage: Scene) -> Trial:
    trial = stage.trial("bad-data")
    message = "train.jsonl, line 3: the column prompt is missing (the file has question, answer)"
    words = said("Failed", 11, reason=Reason.DATA_INVALID, stage="task", message=message, logTail=["task: reading train.jsonl", message])
    stage.puppet.finish(trial.start(), 11, words)
    trial.await_failed("DataInvalid")
    return trial


def out_of_memory(stage: Scene) -> Trial:
    trial = stage.trial("out-of-memory")
    stage.puppet.finish(trial.start(), 137, reason="OOMKilled")
    trial.await_failed("MemoryLimitExceeded")
    return trial


def too_many_disruptions(stage: Scene) -> Trial:
    trial = stage.trial("reclaimed", spec__retry={"maxPreemptions": 0})
    pod = trial.start()
    evict(stage.api, pod)
    trial.stop(trial.await_stopping(pod))
    trial.await_failed("TooManyDisruptions")
    return trial


TROUBLES: Final = (
    Trouble(
        "runtime-not-found",
        "The runtime is not there",
        "Name one that `kubectl get ftr` lists. The job starts by itself within half a minute when the platform team makes the one that is missing.",
        runtime_not_found,
    ),
    Trouble(
        "output-taken",
        "Another job writes to the same output",
        "Two jobs would overwrite each other's model. Delete this job and write another folder in `spec.output.uri`, or delete the other one.",
        output_taken,
    ),
    Trouble(
        "quota-exceeded",
        "The namespace's quota is used up",
        "Wait until other pods end, or ask for a larger ResourceQuota. Nothing else is to be done: the job starts when there is room.",
        quota_exceeded,
        whole_namespace=True,
    ),
    Trouble(
        "no-gpu",
        "No node has the GPU",
        "The platform team adds a node, or corrects `gpuResourceName` in the runtime. Where the nodes have too few free, the message says how many there are.",
        no_gpu,
    ),
    Trouble(
        "claim-missing",
        "A claim is not there",
        "Make the claim in the job's namespace. The pod waits for it and then starts by itself.",
        claim_missing,
    ),
    Trouble(
        "image-unavailable",
        "The trainer image can't be pulled",
        "The image and its pull secrets are the runtime's: the platform team corrects them. A job that has begun keeps the runtime that it began with, so make it again.",
        image_unavailable,
    ),
    Trouble(
        "secret-missing",
        "A Secret is not there",
        "Make it with the key `token`: `kubectl create secret generic hub-token --from-literal=token=…`. The pod waits for it and then starts by itself.",
        secret_missing,
    ),
    Trouble(
        "bad-data",
        "The data is wrong",
        "Correct the rows that the message names and make the job again. Another attempt would end the same, so there is none.",
        bad_data,
    ),
    Trouble(
        "out-of-memory",
        "The trainer needs more memory than it may have",
        "This is the pod's memory limit, not the GPU's memory (that is the reason OutOfMemory). The hint says what to change.",
        out_of_memory,
    ),
    Trouble(
        "too-many-disruptions",
        "The cluster took its pods away too often",
        "Each eviction, preemption and lost node counts towards `retry.maxPreemptions`, which may be raised while the job runs, and never towards `maxAttempts`.",
        too_many_disruptions,
    ),
)
