"""The Job and the claim, field by field where a cluster or a reviewer would stumble."""

from __future__ import annotations

import json
from typing import Any

import pytest

from finetune_api.plan import read_config
from finetune_api.wire import TrainerConfig
from tests import builders
from tests.unit.operator.worlds import IMAGE, UID, World, job, published, runtime, two_segments

FULL: dict[str, Any] = {
    "prepare": "ownPod",
    "imagePullSecrets": [{"name": "registry"}],
    "resources": {
        "prepare": {"requests": {"cpu": "1"}},
        "train": {"requests": {"cpu": "2"}, "limits": {"memory": "8Gi", "cpu": "4"}},
        "report": {"limits": {"memory": "64Mi"}},
    },
    "nodeSelector": {"pool": "gpu"},
    "tolerations": [{"key": "gpu", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}},
    "priorityClassName": "low",
    "runtimeClassName": "nvidia",
    "sharedMemory": "4Gi",
    "podLabels": {"mesh": "off"},
    "podAnnotations": {"scale": "no"},
    "env": [{"name": "HTTPS_PROXY", "value": "http://proxy"}],
    "secrets": [{"name": "hub", "secretName": "hub-token"}],
    "claims": [{"name": "models", "claimName": "all-models", "readOnly": True}],
    "terminationGracePeriodSeconds": 120,
    "stalledAfterSeconds": 900,
}


def made(manifest: dict[str, Any] | None = None, segments: int = 1, **spec: Any) -> list[dict[str, Any]]:
    """The Jobs of a job's segments."""
    world = World(manifest, runtime(**spec))
    for _ in range(segments):
        world.settle(1)
        name = world.run()
        world.settle(1)
        world.end(name, 0, published())
    return list(world.jobs.values())


def pod(made_job: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = made_job["spec"]["template"]["spec"]
    return found


def config(made_job: dict[str, Any]) -> TrainerConfig:
    return read_config(made_job["spec"]["template"]["metadata"]["annotations"]["finetune.dev/trainer-config"])


def test_the_failure_rules_are_in_the_order_that_was_measured() -> None:
    spec = made()[0]["spec"]
    assert [rule["action"] for rule in spec["podFailurePolicy"]["rules"]] == ["Ignore", "Ignore", "FailJob"]
    assert spec["podFailurePolicy"]["rules"][0]["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert spec["podFailurePolicy"]["rules"][1]["onExitCodes"]["values"] == [75]
    assert spec["podFailurePolicy"]["rules"][2]["onExitCodes"]["values"] == [10, 11, 12, 21, 22, 31]
    assert (spec["backoffLimit"], spec["podReplacementPolicy"], spec["completions"]) == (0, "Failed", 1)
    assert not {"ttlSecondsAfterFinished", "activeDeadlineSeconds", "suspend"} & set(spec)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_pod_security_restricted_and_no_rights(number: int) -> None:
    spec = pod(made(two_segments(), 3, **FULL)[number])
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert spec["restartPolicy"] == "Never"
    assert "serviceAccountName" not in spec
    security = spec["securityContext"]
    assert (security["runAsNonRoot"], security["runAsUser"], security["fsGroup"]) == (True, 65532, 65532)
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in spec["containers"]:
        assert container["image"] == IMAGE
        assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
    kinds = {kind for volume in spec["volumes"] for kind in volume if kind != "name"}
    assert kinds <= {"downwardAPI", "persistentVolumeClaim", "emptyDir", "secret"}


def test_a_port_for_metrics_is_opened_where_the_runtime_says_so_and_by_what_prepares_or_trains() -> None:
    name = {"name": "FINETUNE_METRICS_PORT", "value": "9400"}
    for made_job in made(two_segments(), 3, **FULL, metricsPort=9400):
        (container,) = pod(made_job)["containers"]
        assert container["ports"] == [{"name": "metrics", "containerPort": 9400}] and name in container["env"]
    (one,) = made(metricsPort=9400)
    (prepares,) = pod(one)["initContainers"]
    assert "ports" not in prepares and name not in prepares["env"]
    (container,) = pod(made()[0])["containers"]
    assert "ports" not in container and name["name"] not in {each["name"] for each in container["env"]}


def test_gpus_go_to_training_pods_and_nobody_else() -> None:
    prepare, domain, task = made(two_segments(), 3, **FULL)
    limits = [pod(each)["containers"][0]["resources"].get("limits", {}).get("nvidia.com/gpu") for each in (prepare, domain, task)]
    assert limits == [None, "1", "2"]
    assert pod(domain)["containers"][0]["resources"] == {
        "requests": {"cpu": "2", "nvidia.com/gpu": "1"},
        "limits": {"memory": "8Gi", "cpu": "4", "nvidia.com/gpu": "1"},
    }


@pytest.mark.parametrize(
    ("storage", "placed"),
    [
        ({"claimTemplate": {"size": "1Gi"}}, True),
        ({"claimTemplate": {"size": "1Gi", "accessMode": "ReadWriteOncePod"}}, True),
        ({"claimTemplate": {"size": "1Gi", "accessMode": "ReadWriteMany"}}, False),
        ({"claimName": "runs"}, True),
    ],
)
def test_a_volume_of_one_node_puts_the_preparing_pod_where_the_training_pods_go(storage: dict[str, Any], placed: bool) -> None:
    prepare, train = made(None, 2, **{**FULL, "storage": storage})
    for name in ("nodeSelector", "tolerations", "affinity", "runtimeClassName"):
        assert (name in pod(prepare)) is placed
        assert name in pod(train)


def test_only_what_prepares_gets_the_secrets_and_only_those_that_are_used() -> None:
    manifest = job(
        spec__model={"uri": "hf://o/m", "credentials": "mine"}, spec__references__secrets=[{"name": "mine", "secretName": "my-token"}]
    )
    prepare, train = made(manifest, 2, **FULL)
    assert [volume["secret"]["secretName"] for volume in pod(prepare)["volumes"] if "secret" in volume] == ["my-token"]
    assert not [volume for volume in pod(train)["volumes"] if "secret" in volume]
    assert config(prepare).secret_files == {"mine": "/finetune/secrets/mine/token"}


def test_claims_are_read_only_but_for_the_output() -> None:
    manifest = job(
        spec__model={"uri": "pvc://models/m"},
        spec__output={"uri": "pvc://out/x"},
        spec__references__claims=[{"name": "data", "claimName": "team-data"}, {"name": "out", "claimName": "results"}],
    )
    (train,) = made(manifest, 1, **{**FULL, "prepare": "inTrainPod"})
    claims = {
        v["persistentVolumeClaim"]["claimName"]: v["persistentVolumeClaim"] for v in pod(train)["volumes"] if "persistentVolumeClaim" in v
    }
    assert {name: claim.get("readOnly", False) for name, claim in claims.items()} == {
        "runs": False,
        "all-models": True,
        "team-data": True,
        "results": False,
    }
    assert config(train).mounts["out"] == "/finetune/claims/out"
    names = {volume["name"] for volume in pod(train)["volumes"]}
    for container in (*pod(train)["initContainers"], *pod(train)["containers"]):
        assert {mount["name"] for mount in container["volumeMounts"]} <= names


def test_the_config_says_where_and_which_attempt() -> None:
    (train,) = made(None, 1, **{**FULL, "prepare": "inTrainPod"})
    told = config(train)
    assert told.run_folder == f"/finetune/run/team-a/example-{UID}"
    assert (told.threads, told.grace_seconds, told.stalled_after_seconds) == (4, 120, 900)
    assert told.pod is not None
    assert told.pod.run_uri == f"pvc://runs/team-a/example-{UID}"
    assert told.pod.image_digest == IMAGE.partition("@")[2]
    assert [container["args"][0] for container in (*pod(train)["initContainers"], *pod(train)["containers"])] == ["prepare", "train"]
    environment = {each["name"]: each["value"] for each in pod(train)["containers"][0]["env"]}
    assert environment["OMP_NUM_THREADS"] == "4"
    assert environment["DISABLE_KUBEFLOW_INTEGRATION"] == "TRUE"
    assert environment["HTTPS_PROXY"] == "http://proxy"


def test_every_child_is_owned_and_labelled() -> None:
    manifest = job(metadata__name="a" * 63)
    for each in made(manifest, 1, **{**FULL, "prepare": "inTrainPod"}):
        assert len(each["metadata"]["name"]) <= 57, "a pod's name has six characters more"
        assert each["metadata"]["ownerReferences"] == [
            {"apiVersion": "finetune.dev/v1alpha1", "kind": "FineTuneJob", "name": "a" * 63, "uid": UID, "controller": True}
        ]
        for labels in (each["metadata"]["labels"], each["spec"]["template"]["metadata"]["labels"]):
            assert labels["finetune.dev/managed"] == "true"
            assert labels["finetune.dev/job-uid"] == UID
        assert each["spec"]["template"]["metadata"]["labels"]["mesh"] == "off"


@pytest.mark.parametrize(
    ("output", "owned"), [({}, False), ({"uri": "pvc://data/x"}, True), ({"retain": "Never"}, True)], ids=["kept", "elsewhere", "never"]
)
def test_the_claim_outlives_the_job_where_the_model_lies_on_it(output: dict[str, Any], owned: bool) -> None:
    world = World(job(spec__output=output), runtime(storage={"claimTemplate": {"size": "5Gi", "className": "fast"}}))
    world.settle(1)
    assert world.created == ["ft-example-0a1b2c3d", "ft-example-0a1b2c3d-1-1"]
    assert world.claim is not None
    assert ("ownerReferences" in world.claim["metadata"]) is owned
    assert world.claim["metadata"]["labels"]["finetune.dev/job-uid"] == UID
    assert world.claim["spec"] == {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "5Gi"}},
        "storageClassName": "fast",
    }


def test_a_claim_on_its_way_out_is_waited_for() -> None:
    world = World(None, runtime(storage={"claimTemplate": {"size": "5Gi"}}))
    world.claim = {"metadata": {"name": "ft-example-0a1b2c3d", "deletionTimestamp": "2030-01-01T00:00:00Z"}}
    world.settle(1)
    assert world.condition("Running") == ("False", "ClaimTerminating")
    assert world.created == []


def test_the_same_job_gives_the_same_manifest() -> None:
    assert json.dumps(made(None, 2, **FULL)) == json.dumps(made(None, 2, **FULL))


def test_a_job_at_the_schemas_bounds_fits_an_annotation_or_is_refused() -> None:
    stages = [builders.stage(f"s{number}", data={"train": [{"uri": "pvc://data/" + "x" * 900}] * 64}) for number in range(16)]
    for stage in stages[:-1]:
        stage["handOver"] = "merge"
    world = World(job(spec__stages=stages))
    world.settle(1)
    assert world.condition("Accepted") == ("False", "InvalidSpec")
    assert "too large" in next(each["message"] for each in world.status["conditions"])
