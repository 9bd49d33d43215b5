"""What keeps a job from starting: what it names, what the namespace allows, where its pod may go, what its containers need; and that it starts when it can.

Ten more are in `trouble_scenes.py`, since the page on troubleshooting shows them.
"""

from __future__ import annotations

import os
import signal
from typing import Any, Final

import pytest

from finetune_api.constants import DEFAULT_RUNTIME_ANNOTATION
from finetune_operator.kinds import CLAIM, JOB, RUNTIME, uid_of
from finetune_operator.names import claim_name, job_name
from tests.apiserver.trouble import Scene
from tests.apiserver.trouble_scenes import CREDENTIALS
from tests.cluster.pods import await_value

DATA_CLAIM: Final[dict[str, Any]] = {
    "spec__references": {"claims": [{"name": "data", "claimName": "other-data"}]},
    "spec__stages[0]__data": {"train": [{"uri": "pvc://data/train.jsonl"}]},
}
SHARED: Final = {"claimTemplate": {"className": "shared", "accessMode": "ReadWriteMany", "size": "1Gi"}}


# The runtime


def test_a_job_starts_when_its_runtime_comes(stage: Scene) -> None:
    trial = stage.trial("early", runtime="later")
    trial.submit()
    trial.await_refused("RuntimeNotFound")
    stage.runtime("later")
    stage.operator.advance(31)
    trial.succeed(trial.run())


def test_the_default_runtime_must_be_one(own_stage: Scene) -> None:
    stage = own_stage
    trial = stage.trial("no-default", runtime=None)
    trial.submit()
    assert "no ClusterFineTuneRuntime is the default" in trial.await_refused("RuntimeNotFound")
    first, second = stage.runtime("one", default=True), stage.runtime("two", default=True)
    stage.operator.advance(31)
    message = trial.await_refused("RuntimeNotUnique")
    assert f"2 runtimes are the default ({first}, {second}): write runtimeRef.name" in message
    stage.api.patch(RUNTIME.path(None, second), {"metadata": {"annotations": {DEFAULT_RUNTIME_ANNOTATION: None}}})
    stage.operator.advance(31)
    trial.succeed(trial.run())
    assert trial.status["runtime"]["name"] == first


def test_a_runtime_that_makes_no_valid_pod_is_told_by_name(stage: Scene) -> None:
    terms = {"nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "Near", "values": ["x"]}]}]}
    name = stage.runtime("invalid", affinity={"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}})
    trial = stage.trial("invalid-pod", runtime="invalid")
    trial.submit()
    message = trial.await_refused("RuntimeInvalid")
    assert f"is not valid with the ClusterFineTuneRuntime {name}" in message
    assert '"Near"' in message


def test_a_folder_of_a_laptop_is_not_on_the_cluster(stage: Scene) -> None:
    trial = stage.trial("laptop", spec__model={"uri": "file://models/base"})
    trial.submit()
    message = trial.await_refused("InvalidSpec")
    assert "spec.model.uri: file://models/base" in message
    assert "use pvc://NAME/PATH" in message
    assert trial.batch_jobs() == []


# Names and outputs


def test_a_job_of_somebody_else_under_our_name_is_left_alone(stage: Scene) -> None:
    stage.operator.kill()
    trial = stage.trial("name-taken")
    made = trial.submit()
    name = job_name("name-taken", uid_of(made), 1, 1)
    secure = {"allowPrivilegeEscalation": False}
    pod = {"restartPolicy": "Never", "containers": [{"name": "theirs", "image": "example/theirs", "securityContext": secure}]}
    stage.api.post(JOB.path(stage.namespace), {"metadata": {"name": name}, "spec": {"suspend": True, "template": {"spec": pod}}})
    stage.operator.start()
    assert f"Job {name} is there and is not of this job" in trial.await_refused("NameTaken")
    assert "ownerReferences" not in stage.api.get(JOB.path(stage.namespace, name))["metadata"]
    stage.api.delete(JOB.path(stage.namespace, name))
    stage.operator.advance(31)
    trial.succeed(trial.run())


def test_a_claim_of_somebody_else_under_our_name_is_left_alone(stage: Scene) -> None:
    stage.runtime("claims", storage=SHARED)
    stage.operator.kill()
    trial = stage.trial("claim-taken", runtime="claims")
    name = claim_name(trial.submit())
    stage.claim(name)
    stage.operator.start()
    assert f"PersistentVolumeClaim {name} is there and is not of this job" in trial.await_refused("NameTaken")


def test_an_output_is_free_again_when_the_older_job_is_gone(stage: Scene) -> None:
    stage.claim("outputs")
    output: dict[str, Any] = {
        "spec__references": {"claims": [{"name": "models", "claimName": "outputs"}]},
        "spec__output": {"uri": "pvc://models/x"},
    }
    first, second = stage.trial("older", **output), stage.trial("younger", **output)
    pod = first.start()
    second.submit()
    second.await_refused("OutputTaken")
    assert second.batch_jobs() == []
    first.delete()
    stage.puppet.stop(pod)
    stage.operator.advance(61)
    second.succeed(second.run())


# What the namespace allows


def test_a_quota_on_jobs_is_told_and_waited_for(own_stage: Scene) -> None:
    stage = own_stage
    path = f"/api/v1/namespaces/{stage.namespace}/resourcequotas"
    stage.api.post(path, {"metadata": {"name": "no-jobs"}, "spec": {"hard": {"count/jobs.batch": "0"}}})
    await_value(lambda: stage.api.get(f"{path}/no-jobs").get("status", {}).get("hard"), what="the quota counts", timeout=120)
    trial = stage.trial("over-quota")
    trial.submit()
    assert "exceeded quota: no-jobs" in trial.await_waiting("QuotaExceeded")
    stage.api.delete(f"{path}/no-jobs")
    # The admission plugin may know the quota for a moment longer than it is there.
    for _ in range(5):
        stage.operator.advance(31)
    trial.succeed(trial.run())


def test_a_limit_range_is_told(own_stage: Scene) -> None:
    stage = own_stage
    limits = {"limits": [{"type": "Container", "max": {"cpu": "1"}}]}
    stage.api.post(f"/api/v1/namespaces/{stage.namespace}/limitranges", {"metadata": {"name": "small"}, "spec": limits})
    large = {"requests": {"cpu": "4"}, "limits": {"cpu": "4"}}
    stage.runtime("large", resources={"train": large, "prepare": large})
    trial = stage.trial("too-large", runtime="large")
    trial.submit()
    events = f"/api/v1/namespaces/{stage.namespace}/events"
    trial.await_that(lambda: stage.api.items(events, fieldSelector="reason=FailedCreate"), "the Job controller's complaint")
    stage.operator.advance(6)
    message = trial.await_waiting("LimitRange")
    assert "a LimitRange of the namespace forbids the runtime's resources" in message
    assert "maximum cpu usage per Container is 1" in message


def test_a_namespace_that_is_terminating_is_told(own_stage: Scene) -> None:
    """Its controllers are stopped for a moment: they would delete the job faster than anybody could read its status."""
    stage = own_stage
    stage.operator.kill()
    trial = stage.trial("last-one")
    trial.submit()
    identity = stage.cluster.processes.identity("kube-controller-manager")
    assert identity is not None
    os.kill(identity.pid, signal.SIGSTOP)
    try:
        stage.api.delete(f"/api/v1/namespaces/{stage.namespace}")
        stage.operator.start()
        assert trial.await_waiting("NamespaceTerminating").startswith("the namespace is being deleted")
    finally:
        os.kill(identity.pid, signal.SIGCONT)


# Where its pod may go


def test_gpus_that_no_node_has_so_many_of(stage: Scene) -> None:
    stage.runtime("many-gpus", gpus=16)
    trial = stage.trial("many-gpus", runtime="many-gpus")
    trial.submit()
    message = trial.await_waiting("GpuUnavailable")
    assert "2 of 3 nodes have nvidia.com/gpu (16 in all), and none has as many free as the pod asks for" in message


def test_a_node_that_nobody_is(stage: Scene) -> None:
    stage.runtime("nowhere", nodeSelector={"zone": "nowhere"})
    trial = stage.trial("nowhere", runtime="nowhere")
    trial.submit()
    assert "no node takes the pod: 0/" in trial.await_waiting("Unschedulable")


def test_a_claim_that_nobody_binds(stage: Scene) -> None:
    trial = stage.trial("unbound", **DATA_CLAIM)
    stage.claim("other-data", storageClassName="nobody")
    trial.submit()
    assert "a claim is not bound to a volume" in trial.await_waiting("ClaimUnbound")
    stage.api.delete(CLAIM.path(stage.namespace, "other-data"))


def test_a_claim_that_is_bound_to_a_node_where_the_pod_may_not_run(stage: Scene) -> None:
    stage.claim("elsewhere", storageClassName="local-immediate", accessModes=["ReadWriteOnce"])
    stage.await_bound("elsewhere")
    stage.runtime("elsewhere", storage={"claimName": "elsewhere"}, nodeSelector={"kubernetes.io/hostname": "kwok-2"})
    trial = stage.trial("elsewhere", runtime="elsewhere")
    trial.submit()
    assert "bound to a node that the pod may not run on" in trial.await_waiting("ClaimElsewhere")


# What its containers need


def test_a_secret_that_lacks_its_key_and_gets_it(stage: Scene) -> None:
    trial = stage.trial("no-key", **CREDENTIALS)
    trial.submit()
    pod = trial.await_pod()
    said = 'MountVolume.SetUp failed for volume "secret-0" : references non-existent secret key: token'
    stage.puppet.event(pod, "FailedMount", said)
    stage.operator.advance(6)
    assert "a Secret has no key token" in trial.await_waiting("SecretKeyMissing")
    trial.succeed(trial.run())


def test_a_volume_that_is_still_on_another_node(stage: Scene) -> None:
    trial = stage.trial("attached")
    trial.submit()
    said = 'Multi-Attach error for volume "pvc-1" Volume is already exclusively attached to one node and can\'t be attached to another'
    stage.puppet.event(trial.await_pod(), "FailedAttachVolume", said)
    stage.operator.advance(6)
    assert "still attached to another node" in trial.await_waiting("ClaimElsewhere")
    trial.succeed(trial.run())


@pytest.mark.parametrize(
    ("name", "word", "said", "reason"),
    [
        ("never-pulled", "ErrImageNeverPull", "Container image is not present with pull policy of Never", "ImageUnavailable"),
        ("root-image", "CreateContainerConfigError", "container has runAsNonRoot and image will run as root", "ContainerRefused"),
        ("no-entry", "RunContainerError", "exec: no such file or directory", "ContainerRefused"),
    ],
)
def test_a_container_that_can_not_be_started_and_then_can(stage: Scene, name: str, word: str, said: str, reason: str) -> None:
    trial = stage.trial(name)
    trial.submit()
    stage.puppet.wait(trial.await_pod(), word, said)
    message = trial.await_waiting(reason)
    assert said in message
    trial.succeed(trial.run())
