"""How a cluster comes to hold something against a job, and what somebody who follows the hint does about it. A test plays the kubelet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from finetune_api.constants import ClusterReason, ConditionReason
from finetune_operator.kinds import JOB, RUNTIME, uid_of
from finetune_operator.names import job_name
from tests.apiserver.trouble import IMAGE, Scene
from tests.apiserver.trouble_job import Trial, stopped
from tests.apiserver.trouble_scenes import CREDENTIALS
from tests.cluster.pods import await_value, evict
from tests.failures.base import Told

Play = Callable[[Scene], tuple[Trial, Told]]
Mend = Callable[[Scene, Trial], Trial]
"""Follows the hint; returns the job whose pod comes then: the same, or one that was made again."""


def waits(trial: Trial, reason: ConditionReason) -> tuple[Trial, Told]:
    """What a job says that waits: its message is its hint."""
    message = trial.await_waiting(reason)
    return trial, Told(trial.condition("Running")["reason"], message, message)


def refused(trial: Trial, reason: ConditionReason) -> tuple[Trial, Told]:
    """What a job says that is not accepted."""
    message = trial.await_refused(reason)
    return trial, Told(trial.condition("Accepted")["reason"], message, message)


def failed(trial: Trial, reason: ClusterReason) -> tuple[Trial, Told]:
    failure = trial.await_failed(reason)
    return trial, Told(failure["reason"], failure["message"], failure["hint"])


def again(stage: Scene, trial: Trial, runtime: str = "cpu", **edits: Any) -> Trial:
    """The job deleted, and made again under its name; edits by path, with `__` for a dot."""
    trial.delete()
    trial.await_gone()
    anew = stage.trial(trial.name, runtime=runtime, **edits)
    anew.submit()
    return anew


def noticed(stage: Scene, trial: Trial) -> Trial:
    """Nothing but time: the operator looks again."""
    stage.operator.advance(61)
    return trial


# The runtime


def no_runtime(stage: Scene) -> tuple[Trial, Told]:
    stage.trial("any")  # makes one that is there
    trial = stage.trial("no-runtime", runtime="gone")
    trial.submit()
    return refused(trial, ConditionReason.RUNTIME_NOT_FOUND)


def two_defaults(stage: Scene) -> tuple[Trial, Told]:
    stage.runtime("one", default=True)
    stage.runtime("two", default=True)
    trial = stage.trial("two-defaults", runtime=None)
    trial.submit()
    return refused(trial, ConditionReason.RUNTIME_NOT_UNIQUE)


def named(stage: Scene, trial: Trial) -> Trial:
    for suffix in ("one", "two"):
        stage.remove_runtime(f"{stage.namespace}-{suffix}")
    return again(stage, trial)


def invalid_runtime(stage: Scene) -> tuple[Trial, Told]:
    stage.runtime("invalid", affinity=_near("Near"))
    trial = stage.trial("invalid-runtime", runtime="invalid")
    trial.submit()
    return refused(trial, ConditionReason.RUNTIME_INVALID)


def _near(word: str) -> dict[str, Any]:
    expressions = [{"key": "kubernetes.io/hostname", "operator": word}]
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": expressions}]}}}


def corrected(stage: Scene, trial: Trial) -> Trial:
    stage.api.patch(RUNTIME.path(None, f"{stage.namespace}-invalid"), {"spec": {"affinity": _near("Exists")}})
    return noticed(stage, again(stage, trial, "invalid"))


def on_a_laptop(stage: Scene) -> tuple[Trial, Told]:
    trial = stage.trial("laptop", spec__model={"uri": "file://models/base"})
    trial.submit()
    return refused(trial, ConditionReason.INVALID_SPEC)


def on_a_claim(stage: Scene, trial: Trial) -> Trial:
    stage.claim("team-models")
    claims = {"claims": [{"name": "models", "claimName": "team-models"}]}
    return again(stage, trial, spec__model={"uri": "pvc://models/base"}, spec__references=claims)


# What the namespace allows


def _quota(stage: Scene, name: str, hard: dict[str, str]) -> str:
    path = f"/api/v1/namespaces/{stage.namespace}/resourcequotas"
    stage.api.post(path, {"metadata": {"name": name}, "spec": {"hard": hard}})
    await_value(lambda: stage.api.get(f"{path}/{name}").get("status", {}).get("hard"), what="the quota counts", timeout=120)
    return f"{path}/{name}"


def no_pods(stage: Scene) -> tuple[Trial, Told]:
    _quota(stage, "few-pods", {"pods": "0"})
    trial = stage.trial("over-quota")
    trial.submit()
    return waits(_complained(stage, trial), ConditionReason.QUOTA_EXCEEDED)


def _complained(stage: Scene, trial: Trial) -> Trial:
    """The Job controller's event is looked for when a Job has had no pod for some seconds."""
    uids = {uid_of(child) for child in trial.await_that(trial.batch_jobs, "its Job")}

    def found() -> list[Any]:
        events = stage.api.items(f"/api/v1/namespaces/{stage.namespace}/events", fieldSelector="reason=FailedCreate")
        return [event for event in events if event["involvedObject"]["uid"] in uids]

    trial.await_that(found, "the Job controller's complaint")
    stage.operator.advance(6)
    return trial


def raised(name: str) -> Mend:
    def mend(stage: Scene, trial: Trial) -> Trial:
        hard = {"pods": "100"} if name == "few-pods" else {"count/jobs.batch": "100"}
        stage.api.patch(f"/api/v1/namespaces/{stage.namespace}/resourcequotas/{name}", {"spec": {"hard": hard}})
        path = f"/api/v1/namespaces/{stage.namespace}/resourcequotas/{name}"
        await_value(lambda: stage.api.get(path)["status"]["hard"] == hard, what="the quota is raised", timeout=120)
        if name == "few-pods":  # the Job controller tries again after a while of its own: minutes, which nobody waits for here
            return again(stage, trial)
        return noticed(stage, trial)

    return mend


def no_jobs(stage: Scene) -> tuple[Trial, Told]:
    _quota(stage, "no-jobs", {"count/jobs.batch": "0"})
    trial = stage.trial("over-quota-of-jobs")
    trial.submit()
    return waits(trial, ConditionReason.QUOTA_EXCEEDED)


def small_limits(stage: Scene) -> tuple[Trial, Told]:
    limits = {"limits": [{"type": "Container", "max": {"cpu": "1"}}]}
    stage.api.post(f"/api/v1/namespaces/{stage.namespace}/limitranges", {"metadata": {"name": "small"}, "spec": limits})
    large = {"requests": {"cpu": "4"}, "limits": {"cpu": "4"}}
    stage.runtime("large", resources={"train": large, "prepare": large})
    trial = stage.trial("too-large", runtime="large")
    trial.submit()
    return waits(_complained(stage, trial), ConditionReason.LIMIT_RANGE)


def wider_limits(stage: Scene, trial: Trial) -> Trial:
    stage.api.delete(f"/api/v1/namespaces/{stage.namespace}/limitranges/small")
    return again(stage, trial, "large")


# Where its pod may go


def another_gpu(stage: Scene) -> tuple[Trial, Told]:
    stage.runtime("amd", gpus=1, gpuResourceName="amd.com/gpu")
    trial = stage.trial("no-gpu", runtime="amd")
    trial.submit()
    trial.await_pod(scheduled=False)
    return waits(trial, ConditionReason.GPU_UNAVAILABLE)


def named_gpu(stage: Scene, trial: Trial) -> Trial:
    stage.api.patch(RUNTIME.path(None, f"{stage.namespace}-amd"), {"spec": {"gpuResourceName": "nvidia.com/gpu"}})
    return again(stage, trial, "amd")


def nowhere(stage: Scene) -> tuple[Trial, Told]:
    stage.runtime("zoned", nodeSelector={"zone": stage.namespace})
    trial = stage.trial("nowhere", runtime="zoned")
    trial.submit()
    return waits(trial, ConditionReason.UNSCHEDULABLE)


def labelled(stage: Scene, trial: Trial) -> Trial:
    stage.api.patch("/api/v1/nodes/kwok-2", {"metadata": {"labels": {"zone": stage.namespace}}})
    return trial


# Claims


def no_claim(stage: Scene) -> tuple[Trial, Told]:
    trial = stage.trial("no-claim", **_reading("team-data"))
    trial.submit()
    return waits(trial, ConditionReason.CLAIM_MISSING)


def _reading(claim: str) -> dict[str, Any]:
    return {
        "spec__references": {"claims": [{"name": "data", "claimName": claim}]},
        "spec__stages[0]__data": {"train": [{"uri": "pvc://data/train.jsonl"}]},
    }


def made(stage: Scene, trial: Trial) -> Trial:
    stage.claim("team-data")
    return trial


def elsewhere(stage: Scene) -> tuple[Trial, Told]:
    stage.claim("elsewhere", storageClassName="local-immediate", accessModes=["ReadWriteOnce"])
    stage.await_bound("elsewhere")
    stage.runtime("elsewhere", storage={"claimName": "elsewhere"}, nodeSelector={"kubernetes.io/hostname": "kwok-2"})
    trial = stage.trial("elsewhere", runtime="elsewhere")
    trial.submit()
    return waits(trial, ConditionReason.CLAIM_ELSEWHERE)


def admitted(stage: Scene, trial: Trial) -> Trial:
    """The runtime admits every node; a merge patch takes the old selector's word out."""
    selector = {"kubernetes.io/hostname": None, "type": "kwok"}
    stage.api.patch(RUNTIME.path(None, f"{stage.namespace}-elsewhere"), {"spec": {"nodeSelector": selector}})
    return again(stage, trial, "elsewhere")


def output(stage: Scene) -> tuple[Trial, Told]:
    stage.claim("outputs")
    stage.trial("first-support", **writing("support")).start()
    trial = stage.trial("second-support", **writing("support"))
    trial.submit()
    return refused(trial, ConditionReason.OUTPUT_TAKEN)


def writing(folder: str) -> dict[str, Any]:
    return {
        "spec__references": {"claims": [{"name": "models", "claimName": "outputs"}]},
        "spec__output": {"uri": f"pvc://models/{folder}"},
    }


# What its containers need


def no_secret(stage: Scene) -> tuple[Trial, Told]:
    trial = stage.trial("no-secret", **CREDENTIALS)
    trial.submit()
    pod = trial.await_pod()
    stage.puppet.event(pod, "FailedMount", 'MountVolume.SetUp failed for volume "secret-0" : secret "hub-token" not found')
    stage.operator.advance(6)
    return waits(trial, ConditionReason.SECRET_MISSING)


def secret(stage: Scene, trial: Trial) -> Trial:
    made = {"metadata": {"name": "hub-token"}, "stringData": {"token": "hf_abcdefghijklmnop"}}
    stage.api.post(f"/api/v1/namespaces/{stage.namespace}/secrets", made)
    return trial


def no_image(stage: Scene) -> tuple[Trial, Told]:
    missing = IMAGE.replace("trainer", "trianer")
    stage.runtime("image", image=missing)
    trial = stage.trial("no-image", runtime="image")
    trial.submit()
    said = f'failed to pull and unpack image "{missing}": failed to resolve reference: not found'
    stage.puppet.wait(trial.await_pod(), "ImagePullBackOff", f"Back-off pulling image: ErrImagePull: {said}")
    return waits(trial, ConditionReason.IMAGE_UNAVAILABLE)


def image(stage: Scene, trial: Trial) -> Trial:
    stage.api.patch(RUNTIME.path(None, f"{stage.namespace}-image"), {"spec": {"image": IMAGE}})
    pod = trial.await_pod()
    anew = again(stage, trial, "image")
    stage.puppet.remove(pod)
    assert anew.await_pod()["spec"]["containers"][0]["image"] == IMAGE
    return anew


# Whoever else is there, and how often


def name_taken(stage: Scene) -> tuple[Trial, Told]:
    stage.operator.kill()
    trial = stage.trial("name-taken")
    name = job_name(trial.name, uid_of(trial.submit()), 1, 1)
    pod = {"restartPolicy": "Never", "containers": [{"name": "theirs", "image": "example/theirs"}]}
    stage.api.post(JOB.path(stage.namespace), {"metadata": {"name": name}, "spec": {"suspend": True, "template": {"spec": pod}}})
    stage.operator.start()
    return refused(trial, ConditionReason.NAME_TAKEN)


def freed(stage: Scene, trial: Trial) -> Trial:
    stage.api.delete(JOB.path(stage.namespace, job_name(trial.name, uid_of(trial.seen), 1, 1)))
    return noticed(stage, trial)


def reclaimed(stage: Scene) -> tuple[Trial, Told]:
    trial = stage.trial("reclaimed", spec__retry={"maxPreemptions": 0})
    _evicted(stage, trial, trial.start())
    return failed(trial, ClusterReason.TOO_MANY_DISRUPTIONS)


def _evicted(stage: Scene, trial: Trial, pod: Any) -> None:
    evict(stage.api, pod)
    trial.stop(trial.await_stopping(pod), 75, stopped(40))


def more_preemptions(stage: Scene, trial: Trial) -> Trial:
    """A new job, to which the same happens once."""
    anew = again(stage, trial, spec__retry={"maxPreemptions": 2})
    anew.puppet = type(stage.puppet)(stage.api)  # the Job controller's ten seconds are the machine's
    pod = anew.run()
    evict(stage.api, pod)
    anew.stop(anew.await_stopping(pod), 75, stopped(40))
    anew.await_that(lambda: anew.attempts() == [(1, "Evicted")], "the eviction is on record")
    return anew


def too_long(stage: Scene) -> tuple[Trial, Told]:
    trial = stage.trial("too-long", spec__activeDeadlineSeconds=60)
    pod = trial.start()
    stage.operator.advance(61)
    trial.stop(trial.await_stopping(pod), 75, stopped(40))
    return failed(trial, ClusterReason.DEADLINE_EXCEEDED)


def longer(stage: Scene, trial: Trial) -> Trial:
    """A new job, which takes as long."""
    anew = again(stage, trial, spec__activeDeadlineSeconds=600)
    anew.run()
    stage.operator.advance(61)
    return anew
