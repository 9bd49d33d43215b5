"""A finished job is asked for what it left: what is made for a request, once, and what a request can not bring about."""

from __future__ import annotations

import json
from typing import Any

import pytest

from finetune_api import constants as c
from finetune_api.reading import SLICE_BYTES, What
from finetune_api.wire import TrainerConfig
from finetune_operator.index import is_settled
from finetune_operator.model import Refusal
from tests.apiserver.invariants import Granted, violations
from tests.unit.operator.worlds import World, job, result, runtime

DIGEST = "b" * 64
ID = "1a2b3c4d"


def artifact(kind: str, size: int = 10) -> dict[str, Any]:
    return {"kind": kind, "uri": f"pvc://runs/x/{kind}", "sha256": DIGEST, "bytes": size}


def request(what: str = "adapter", *, identity: str = ID, **more: Any) -> str:
    return json.dumps({"id": identity, "what": what, **more})


def ended(world: World | None = None, *artifacts: dict[str, Any], code: int = 0) -> World:
    """A job that has ended, having published these."""
    world = world or World()
    world.settle(1)
    name = world.run()
    world.settle(1)
    told = artifacts or (artifact("adapter"), artifact("report"), artifact("modelCard"))
    world.end(name, code, result(artifacts=list(told)) if code == 0 else result("Failed", code, reason="LossDiverged", message="NaN"))
    world.settle(1)
    return world


def ask(world: World, text: str) -> None:
    world.job["metadata"].setdefault("annotations", {})[c.READ_ANNOTATION] = text
    world.settle(1)


def reader(world: World, identity: str = ID) -> dict[str, Any]:
    return world.jobs[f"ft-{world.job['metadata']['name']}-0a1b2c3d-read-{identity}"]


def config_of(made: dict[str, Any]) -> TrainerConfig:
    return TrainerConfig.model_validate_json(made["spec"]["template"]["metadata"]["annotations"][c.TRAINER_CONFIG_ANNOTATION])


def test_a_request_is_served_once_and_the_job_stays_as_it_was() -> None:
    world = ended()
    before = {name: value for name, value in world.status.items() if name != "lastRead"}
    ask(world, request())
    made = reader(world)
    assert world.status == {**before, "lastRead": {"id": ID, "job": made["metadata"]["name"]}}
    assert (made["spec"]["activeDeadlineSeconds"], made["spec"]["ttlSecondsAfterFinished"], made["spec"]["backoffLimit"]) == (300, 300, 0)
    assert made["metadata"]["labels"] | {c.SEGMENT_LABEL: "read", c.READ_LABEL: ID} == made["metadata"]["labels"]
    assert world.notes[-1] == "Read"
    assert is_settled(world.job)
    pod = world.run(container="slice-0")  # while it runs, and after it is gone, nothing is to be done
    world.settle(1)
    world.gone(pod, made["metadata"]["name"])
    world.settle(301)
    assert (len(world.created), world.status) == (2, {**before, "lastRead": {"id": ID, "job": made["metadata"]["name"]}})


def test_a_finished_job_that_nobody_asks_is_settled_and_one_that_is_asked_is_not() -> None:
    world = ended()
    assert is_settled(world.job)
    world.job["metadata"]["annotations"] = {c.READ_ANNOTATION: request()}
    assert not is_settled(world.job)
    world.settle()
    assert is_settled(world.job)
    world.job["metadata"]["annotations"] = {}
    assert is_settled(world.job), "the request may be taken back"


def test_an_operator_that_was_ended_after_it_made_the_job_makes_no_second() -> None:
    world = ended()
    ask(world, request())
    del world.job["status"]["lastRead"]
    world.settle(1)
    assert world.status["lastRead"]["job"].endswith(f"-read-{ID}")
    assert len(world.created) == 2


def test_the_pod_reads_one_claim_and_can_nothing_else() -> None:
    full = runtime(
        resources={"report": {"requests": {"cpu": "100m"}}},
        secrets=[{"name": "hub", "secretName": "hub-token"}],
        nodeSelector={"pool": "gpu"},
        prepare="ownPod",
    )
    world = World(job(), full)
    world.settle(1)
    world.end(world.run(), 0)
    world = ended(world, artifact("adapter", 2 * SLICE_BYTES + 1))
    ask(world, request())
    pod = reader(world)["spec"]["template"]["spec"]
    containers = [*pod["initContainers"], *pod["containers"]]
    assert [each["args"] for each in containers] == [["read", "--config", c.CONFIG_FILE, "--slice", str(number)] for number in range(3)]
    assert len(pod["containers"]) == 1
    assert pod["automountServiceAccountToken"] is False and pod["nodeSelector"] == {"pool": "gpu"}
    claims = [each for each in pod["volumes"] if not {"downwardAPI", "emptyDir"} & set(each)]
    assert claims == [{"name": "read", "persistentVolumeClaim": {"claimName": "runs"}}]
    for each in containers:
        assert each["resources"] == {"requests": {"cpu": "100m"}}
        assert each["securityContext"]["readOnlyRootFilesystem"] is True
        mounts = {mount["mountPath"]: mount.get("readOnly", False) for mount in each["volumeMounts"]}
        assert mounts == {"/etc/finetune": True, c.RUN_STORAGE: True, "/tmp": False}
    told = config_of(reader(world))
    assert told.reading is not None
    assert (told.reading.what, told.reading.first, told.secret_files) == (What.ADAPTER, 0, {})
    assert [(each.kind, each.sha256) for each in told.reading.artifacts] == [("adapter", DIGEST)]


@pytest.mark.parametrize("what", ["adapter", "report", "logs"])
def test_a_reading_job_has_nothing_that_its_job_could_not_give_it(what: str) -> None:
    """Judged as the escalations are (tests/apiserver)."""
    world = ended()
    ask(world, request(what))
    granted = Granted(runtime(), secrets=frozenset(), claims=frozenset({"runs"}), read_only=frozenset())
    assert list(violations(reader(world), world.job, granted)) == []


@pytest.mark.parametrize(("what", "claim", "path"), [("adapter", "mine", "/finetune/claims/out"), ("logs", "runs", c.RUN_STORAGE)])
def test_artifacts_on_a_claim_of_the_user_are_read_there(what: str, claim: str, path: str) -> None:
    references = [{"name": "data", "claimName": "team-data"}, {"name": "out", "claimName": "mine"}]
    world = ended(World(job(spec__references__claims=references, spec__output={"uri": "pvc://out/model"})))
    ask(world, request(what))
    pod = reader(world)["spec"]["template"]["spec"]
    assert [each["persistentVolumeClaim"]["claimName"] for each in pod["volumes"] if "persistentVolumeClaim" in each] == [claim]
    assert [each for each in pod["containers"][0]["volumeMounts"] if each["name"] == "read"] == [
        {"name": "read", "mountPath": path, "readOnly": True}
    ]


@pytest.mark.parametrize(
    ("size", "part", "slices"), [(0, 1, [0]), (SLICE_BYTES, 1, [0]), (9 * SLICE_BYTES, 1, list(range(8))), (9 * SLICE_BYTES, 2, [8])]
)
def test_a_pod_has_a_container_a_slice(size: int, part: int, slices: list[int]) -> None:
    world = ended(None, artifact("merged", size))
    ask(world, request("merged", part=part))
    pod = reader(world)["spec"]["template"]["spec"]
    assert [each["name"] for each in [*pod.get("initContainers", []), *pod["containers"]]] == [f"slice-{number}" for number in slices]
    told = config_of(reader(world)).reading
    assert told is not None and told.first == slices[0]


def test_the_logs_of_a_failed_job_can_be_read_and_its_model_not() -> None:
    world = ended(code=21)
    ask(world, request("logs"))
    assert world.status["lastRead"]["job"].endswith(f"-read-{ID}")
    ask(world, request("adapter", identity="00000001"))
    assert world.status["lastRead"] == {"id": "00000001", "message": "no adapter was published: there is nothing"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", None),
        ("no JSON", "is no request"),
        ("[1, 2]", "is no request"),
        (request(identity="1A2B3C4D"), "is no request"),
        (request(identity="../../etc"), "is no request"),
        (request("passwd"), "is no request"),
        (request(path="/etc/passwd"), "is no request"),
        (request(part=0), "is no request"),
        (request(part=True), "is no request"),
        (request(part=10**9), "is no request"),
        ("x" * 100_000, "is no request"),
        ("\ud800", "is no request"),
        (request("merged"), "no merged was published: there is adapter, report, modelCard"),
        (request(part=2), "no part 2 of the adapter: it has 1"),
        (request("logs", part=5), "no part 5 of the logs"),
    ],
)
def test_what_is_no_request_or_can_not_be_served_is_said_once(text: str, says: str | None) -> None:
    world = ended()
    before = len(world.notes)
    ask(world, text)
    ask(world, text)
    assert len(world.created) == 1
    assert world.notes[before:] == (["ReadRefused"] if says else [])
    if says:
        assert says in world.told[-1] and says in world.status["lastRead"]["message"]
    assert is_settled(world.job)


def test_what_is_too_large_says_where_it_lies() -> None:
    world = ended(None, artifact("merged", 2 << 30))
    ask(world, request("merged"))
    assert "2,048 MiB" in world.status["lastRead"]["message"] and "pvc://runs/x/merged" in world.status["lastRead"]["message"]


def test_a_refused_job_is_said_and_not_tried_again() -> None:
    world = ended()
    world.refuse = Refusal("Job", "ft-example-0a1b2c3d-read-1a2b3c4d", 403, "Forbidden", "exceeded quota: pods")
    ask(world, request())
    assert "exceeded quota: pods" in world.status["lastRead"]["message"]
    world.refuse = None
    world.settle(1)
    assert len(world.created) == 1


def test_a_claim_that_is_gone_is_said() -> None:
    world = ended(World(job(), runtime(storage={"claimTemplate": {"size": "1Gi"}})))
    world.claim = None
    ask(world, request("logs"))
    assert world.status["lastRead"]["message"].startswith("the claim with the run folder is gone")


def test_no_more_than_four_read_at_once() -> None:
    world = ended()
    for number in range(4):
        ask(world, request(identity=f"0000000{number}"))
    ask(world, request())
    assert (len(world.created), world.requeue, is_settled(world.job)) == (5, 10.0, False)
    world.jobs["ft-example-0a1b2c3d-read-00000002"]["status"] = {"conditions": [{"type": "Complete", "status": "True"}]}
    world.settle(10)
    assert world.status["lastRead"]["id"] == ID


def test_what_a_queue_holds_for_somebody_who_has_gone_is_deleted() -> None:
    world = ended(World(job(), runtime(queueName="team")))
    for number in range(4):
        ask(world, request(identity=f"0000000{number}"))
    assert reader(world, "00000000")["spec"]["suspend"] is True
    world.seconds += 601
    ask(world, request())
    assert [name[-8:] for name, each in world.jobs.items() if each["metadata"].get("deletionTimestamp")] == [
        f"0000000{n}" for n in range(4)
    ]
    assert world.status["lastRead"]["id"] == ID


def test_a_job_at_work_is_not_read_until_it_has_ended() -> None:
    world = World()
    world.job["metadata"]["annotations"] = {c.READ_ANNOTATION: request("logs")}
    world.settle(1)
    name = world.run()
    world.settle(1)
    assert len(world.created) == 1
    world.end(name, 0, result(artifacts=[artifact("adapter")]))
    world.settle(1)
    assert world.status["lastRead"]["id"] == ID
    assert world.status["phase"] == "Succeeded"


def test_reading_costs_no_attempt_and_no_budget_even_where_the_status_is_lost() -> None:
    world = ended()
    ask(world, request())
    world.run(container="slice-0")
    before = {name: world.status[name] for name in ("attempts", "usage", "phase")}
    world.job["status"] = {"observedGeneration": -1}
    world.settle(1)
    assert {name: world.status[name] for name in before} == before
    assert "budgets" not in world.status
    assert world.status["lastRead"]["job"] == reader(world)["metadata"]["name"]


def test_a_job_whose_time_to_live_is_over_is_deleted_and_not_read() -> None:
    world = ended(World(job(spec__ttlSecondsAfterFinished=60)))
    world.job["metadata"]["annotations"] = {c.READ_ANNOTATION: request()}
    world.step(10)
    assert world.status["lastRead"]["id"] == ID and world.requeue is not None and world.requeue <= 50
    world.job["metadata"]["annotations"] = {c.READ_ANNOTATION: request(identity="00000009")}
    world.step(60)
    assert "deletionTimestamp" in world.job["metadata"] and len(world.created) == 2
