"""What a pod reports becomes the status: with whatever is written anyway, else in its turn; the percentage holds, the step is true."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from finetune_api.wire import Activity, ProgressUpdate
from finetune_operator.decide import decide
from finetune_operator.model import Create, Endpoint, Live
from finetune_operator.progress.fold import duration, seconds_left
from tests import builders
from tests.unit.operator.worlds import START, Document, World, job, published, result, runtime, two_segments


def live(world: World, update: ProgressUpdate, *, pace: float | None = None, due: bool = True, job: str = "", **more: Any) -> Live:
    training = update if update.activity is Activity.TRAIN else more.pop("training", None)
    received = START + timedelta(seconds=world.seconds)
    pod = more.pop("pod", next(reversed(world.pods), ""))
    return Live(update, training, more.pop("metrics", {}), job or world.newest, received, pace, due, pod=pod)


def train(done: int, percent: float, stage: str = "task", **fields: Any) -> ProgressUpdate:
    return ProgressUpdate(activity=Activity.TRAIN, stage=stage, done=done, total=1000, percent=percent, **fields)


def tell(world: World, told: Live | None, seconds: float = 0.0) -> bool:
    """Reconcile with a report; True where only the report made the status change."""
    world.seconds += seconds
    seen = world.observed(pod_nodes={})
    decision, untold = decide(replace(seen, live=told)), decide(seen).status
    assert not decision.needs and not decision.actions
    only_report = decision.status not in (None, world.status) and untold in (None, world.status)
    if decision.status is not None and decision.status != world.status:
        world.job["status"] = dict(decision.status)
        again = decide(replace(world.observed(pod_nodes={}), live=told))
        assert again.status == decision.status, "the same world gives another status"
    return only_report


def running(**runtime_spec: Any) -> World:
    world = World(None, runtime(**runtime_spec))
    world.settle(1)
    world.run()
    world.settle(1)
    return world


def test_a_report_in_its_turn_is_the_whole_story() -> None:
    world = running()
    update = train(410, 41.96, epoch=1.20004, loss=0.812345, learning_rate=1e-4, grad_norm=0.95, tokens_per_second=5120.4)
    assert tell(world, live(world, update, pace=0.01, metrics={"eval_loss": 1.23456}), 30)
    assert world.status["progress"] == {
        "percent": 41,
        "step": 410,
        "totalSteps": 1000,
        "epoch": 1.2,
        "loss": 0.8123,
        "tokensPerSecond": 5120.0,
        "etaSeconds": 5804,
        "eta": "1h36m",
        "updatedAt": "2030-01-01T12:00:02Z",
    }
    assert world.status["stages"][0]["metrics"] == {"loss": 0.8123, "learning_rate": 1e-4, "grad_norm": 0.95, "eval_loss": 1.235}
    assert (world.status["currentStage"], world.status["stages"][0]["phase"]) == ("task", "Running")


def test_of_a_gpu_what_it_took_outlasts_the_run_and_what_it_does_now_does_not() -> None:
    world = running()
    gpu = {"gpu_memory_bytes": 40, "gpu_memory_peak_bytes": 48, "gpu_memory_total_bytes": 80, "gpu_utilization_percent": 97}
    lasting = {"gpuMemoryPeakBytes": 48, "gpuMemoryTotalBytes": 80}
    tell(world, live(world, train(410, 41.0, **gpu), pace=0.1), 30)
    said = {name: value for name, value in world.status["progress"].items() if name.startswith("gpu")}
    assert said == {**lasting, "gpuMemoryBytes": 40, "gpuUtilizationPercent": 97}
    (name,) = world.pods
    world.end(name, 75, result("Stopped", 75, reason="Stopped"), job_ends=False)
    world.settle(5)
    assert {name: value for name, value in world.status["progress"].items() if name.startswith("gpu")} == lasting


def test_out_of_its_turn_it_waits_but_goes_along_with_what_is_written() -> None:
    world = running()
    before = dict(world.status)
    assert not tell(world, live(world, train(1, 1.0), due=False), 1)
    assert world.status == before
    (name,) = world.pods
    world.pods[name]["metadata"]["deletionTimestamp"] = "2030-01-01T12:01:00Z"
    assert not tell(world, live(world, train(2, 2.0), due=False), 1)
    assert world.status["progress"]["step"] == 2


def test_the_same_again_is_no_write() -> None:
    world = running()
    tell(world, live(world, train(5, 5.0, loss=1.0), pace=0.1), 30)
    before = dict(world.status)
    tell(world, live(world, train(5, 5.0, loss=1.0), pace=0.1), 30)
    assert world.status == before


def test_the_percentage_holds_and_the_step_is_true_after_a_resume() -> None:
    world = running()
    tell(world, live(world, train(410, 41.0), pace=0.1), 410)
    (name,) = world.pods
    world.end(name, 75, result("Stopped", 75, reason="Stopped"), job_ends=False)
    world.settle(5)
    assert "eta" not in world.status["progress"], "nothing runs: nobody knows how long it takes"
    world.run()
    world.settle(10)
    assert tell(world, live(world, train(400, 40.0)), 5)
    assert (world.status["progress"]["percent"], world.status["progress"]["step"]) == (41, 400)
    spent = 410 + 5 + 10 - 1 + 5
    assert world.status["progress"]["etaSeconds"] == pytest.approx(60 * spent / 40, rel=0.1)


def test_a_report_of_an_earlier_attempt_is_not_told() -> None:
    world = running()
    first = world.newest
    old = live(world, train(10, 10.0))
    world.end(next(iter(world.pods)), 1, result("Failed", 1, reason="InternalError", message="x"))
    world.settle(1)
    world.settle(60)
    assert world.newest != first
    world.run()
    world.settle(1)
    before = dict(world.status)
    assert not tell(world, old, 1)
    assert world.status == before


def test_evaluation_moves_the_percentage_and_keeps_the_step() -> None:
    world = running()
    training = train(1000, 60.0, loss=0.5, tokens_per_second=100.0)
    tell(world, live(world, training, pace=0.1), 10)
    suite = ProgressUpdate(activity=Activity.EVALUATE, stage="task", suite="knowledge", done=5, total=10, unit="rows", percent=80.0)
    tell(world, live(world, suite, pace=0.1, training=training), 10)
    progress = world.status["progress"]
    assert (progress["percent"], progress["step"], progress["loss"]) == (80, 1000, 0.5)
    assert "tokensPerSecond" not in progress


def test_the_stage_before_the_reported_one_is_done() -> None:
    stages = two_segments()["spec"]["stages"]
    for stage in stages:
        stage.pop("resources")
    world = World(job(spec__stages=stages), runtime())
    world.settle(1)
    world.run()
    world.settle(1)
    assert world.status["currentStage"] == "domain"
    tell(world, live(world, train(3, 70.0, "task")), 60)
    assert [stage["phase"] for stage in world.status["stages"]] == ["Succeeded", "Running"]
    assert world.status["currentStage"] == "task"
    tell(world, None, 60)
    assert world.status["currentStage"] == "task", "without a report it stays as it was known"
    assert world.status["summary"]["stage"] == "task"


def test_preparing_has_a_percentage_too() -> None:
    world = World(two_segments(), runtime(prepare="ownPod"))
    world.settle(1)
    world.run()
    world.settle(1)
    tell(world, live(world, ProgressUpdate(activity=Activity.PREPARE, done=5, total=10, unit="bytes", percent=1.4)), 60)
    assert world.status["phase"] == "Preparing"
    assert world.status["progress"]["percent"] == 1


def test_a_job_that_runs_never_has_all_and_one_that_succeeded_has() -> None:
    world = running()
    tell(world, live(world, train(1000, 100.0, loss=0.5), pace=0.1), 10)
    assert world.status["progress"]["percent"] == 99
    world.end(next(iter(world.pods)), 0, published())
    world.settle(1)
    assert world.status["progress"]["percent"] == 100
    assert world.status["progress"]["loss"] == 0.5
    assert not {"eta", "etaSeconds", "tokensPerSecond"} & set(world.status["progress"])


def test_the_last_that_a_job_said_goes_along_with_its_success() -> None:
    world = running()
    world.end(next(iter(world.pods)), 0, published())
    assert not tell(world, live(world, train(1000, 98.0, loss=0.25), due=False), 60)
    assert world.status["phase"] == "Succeeded"
    assert world.status["progress"] == {
        "percent": 100,
        "step": 1000,
        "totalSteps": 1000,
        "loss": 0.25,
        "updatedAt": "2030-01-01T12:00:02Z",
    }


def test_of_a_stage_that_misses_its_gate_the_result_knows_more_than_the_last_report() -> None:
    """A report is of one step, and of the arm that came last: the result is of the stage's last steps, and of the arm that is chosen."""
    world = running()
    tell(world, live(world, train(900, 90.0, loss=0.9, learning_rate=1e-4), metrics={"eval_loss": 0.95}), 10)
    ended = {"status": {"name": "task", "phase": "Failed", "metrics": {"loss": 0.512345, "eval_loss": 0.61}}, "steps": 1000}
    world.end(next(iter(world.pods)), 22, result("Failed", 22, reason="GateFailed", message="x", stage="task", stages=[ended]))
    last = live(world, train(1000, 99.0, loss=0.2, learning_rate=1e-5), metrics={"eval_loss": 0.95})
    for _ in range(2):  # as news, and as what is known
        tell(world, last, 10)
        assert world.status["phase"] == "Failed"
        assert world.status["stages"][0]["metrics"] == {"loss": 0.512345, "eval_loss": 0.61, "learning_rate": 1e-5}


def test_a_failed_job_keeps_what_it_came_to() -> None:
    world = running()
    tell(world, live(world, train(300, 30.0, loss=0.5), pace=0.1), 10)
    world.end(next(iter(world.pods)), 21, result("Failed", 21, reason="LossDiverged", message="x", stage="task", step=301))
    told = live(world, train(301, 30.1, loss=9.5), pace=0.1, due=False)
    assert not tell(world, told, 1)
    assert world.status["phase"] == "Failed"
    assert world.status["progress"]["step"] == 301, "the last that it said goes along with its end"
    assert "eta" not in world.status["progress"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59, "59s"), (60, "1m0s"), (3599, "59m59s"), (3600, "1h0m"), (90061, "1d1h"), (10**8, "1157d9h")],
)
def test_a_time_has_two_units_at_most(seconds: int, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("share", "pace", "running", "left"),
    [
        (50.0, 0.5, 10.0, 100),
        (40.0, None, 400.0, 600),
        (0.0, None, 400.0, None),
        (10.0, None, 0.0, None),
        (0.000001, None, 1e6, None),
    ],
    ids=["by its pace", "by the job so far", "nothing is done", "no time has passed", "longer than anybody waits"],
)
def test_the_time_left(share: float, pace: float | None, running: float, left: int | None) -> None:
    assert seconds_left(share, pace, running) == left


def pod_of(endpoint: Endpoint | None) -> tuple[Document, Document]:
    """Annotations and spec of the pod of a new job's first Job."""
    world = World(None, runtime())
    created = [action.manifest for action in world.decide(endpoint=endpoint).actions if isinstance(action, Create)]
    (template,) = [manifest["spec"]["template"] for manifest in created if manifest["kind"] == "Job"]
    return template["metadata"]["annotations"], template["spec"]


def test_a_pod_is_told_where_to_report_and_gets_a_token_for_nothing_else() -> None:
    annotations, spec = pod_of(Endpoint("https://operator.svc:8443/v1/progress", "PEM"))
    assert annotations["finetune.dev/progress-ca"] == "PEM"
    (volume,) = [volume for volume in spec["volumes"] if volume["name"] == "progress"]
    token, trusted = volume["projected"]["sources"]
    assert token == {"serviceAccountToken": {"audience": "finetune.dev/progress", "expirationSeconds": 3600, "path": "token"}}
    assert trusted["downwardAPI"]["items"] == [
        {"path": "ca.crt", "fieldRef": {"fieldPath": "metadata.annotations['finetune.dev/progress-ca']"}}
    ]
    assert spec["automountServiceAccountToken"] is False
    for container in (*spec["initContainers"], *spec["containers"]):
        assert {"name": "FINETUNE_PROGRESS_URL", "value": "https://operator.svc:8443/v1/progress"} in container["env"]
        assert {"name": "DISABLE_KUBEFLOW_INTEGRATION", "value": "TRUE"} in container["env"]
        assert {"name": "progress", "mountPath": "/finetune/progress", "readOnly": True} in container["volumeMounts"]


def test_without_an_endpoint_a_pod_has_nothing_of_it() -> None:
    annotations, spec = pod_of(None)
    assert set(annotations) == {"finetune.dev/trainer-config"}
    assert "progress" not in str({**spec, "containers": [{**each, "args": []} for each in spec["containers"]]})


def killed_for_memory(*told: ProgressUpdate, persisted: bool, maximum: int = 9) -> World:
    """A job whose pods, one after the other, reported this last and were then killed for memory; the operator may start anew before each end."""
    world = World(two_stages(spec__retry={"maxAttempts": maximum}))
    for update in told:
        world.settle(400)
        name = world.run()
        world.settle(1)
        report = live(world, update, pod=name)
        if persisted:
            assert tell(world, report, 20)
        world.end(name, 137, reason="OOMKilled")
        seen = world.observed(pod_nodes={}, **({} if persisted else {"live": report}))
        world.job["status"] = dict(decide(seen).status or {})
    return world


def two_stages(**edits: Any) -> Document:
    """A job whose two stages share a segment."""
    rows = {"train": [{"uri": "pvc://data/a"}]}
    return job(spec__stages=[builders.stage("domain", handOver="merge", data=rows), builders.stage("task", data=rows)], **edits)


@pytest.mark.parametrize("persisted", [True, False], ids=["in the status", "just reported"])
@pytest.mark.parametrize(
    ("told", "phase"),
    [
        ([train(7, 1.0, "domain")], "Pending"),
        ([train(7, 1.0, "domain"), train(8, 1.0, "domain")], "Pending"),
        ([train(7, 1.0, "domain"), train(7, 1.0, "domain")], "Failed"),
        ([train(900, 40.0, "domain"), train(3, 51.0, "task")], "Pending"),
        ([train(3, 51.0, "task"), train(900, 40.0, "domain")], "Failed"),
        ([ProgressUpdate(activity=Activity.LOAD, percent=1.0)], "Failed"),
    ],
    ids=["a first step", "a step more", "no step more", "the next stage", "an earlier stage", "no step at all"],
)
def test_killed_for_memory_goes_on_only_where_it_got_further(told: list[ProgressUpdate], phase: str, persisted: bool) -> None:
    world = killed_for_memory(*told, persisted=persisted)
    assert world.status["phase"] == phase
    assert world.status["attempts"][-1].get("step") == (told[-1].done if told[-1].activity is Activity.TRAIN else None)
    assert world.condition("Running")[1] == ("BackOff" if phase == "Pending" else "MemoryLimitExceeded")


def test_what_another_pod_reported_is_not_this_ones() -> None:
    world = killed_for_memory(train(7, 1.0, "domain"), persisted=True)
    world.settle(400)
    world.run()
    world.settle(1)
    tell(world, live(world, train(9, 1.0, "domain"), pod="an-earlier-one"), 20)
    assert "step" not in world.status["attempts"][-1]


def several(**domain: Any) -> World:
    """A job of two stages, two seeds and a comparison, at work."""
    stages = [
        builders.stage("domain", handOver="merge", data={"train": [{"uri": "pvc://data/a"}]}, **domain),
        builders.stage("task", compareWith="direct", data={"train": [{"uri": "pvc://data/b"}], "validation": {"fraction": 0.1}}),
    ]
    suites = [builders.suite("test", "causalLanguageModeling", "loss")]
    world = World(
        job(spec__stages=stages, spec__seeds=[1, 2], spec__evaluation={"suites": [{**suites[0], "data": {"uri": "pvc://data/t"}}]})
    )
    world.settle(1)
    world.run()
    world.settle(1)
    return world


@pytest.mark.parametrize(
    ("arm", "stage", "words", "phases"),
    [
        (0, "domain", "seed 1", ["Running", "Pending"]),
        (0, "task", "seed 1", ["Succeeded", "Running"]),
        (1, "domain", "seed 2", ["Running", "Pending"]),
        (2, "task", "seed 1, direct", ["Succeeded", "Running"]),
    ],
)
def test_status_tells_the_arm_at_work_and_where_it_is(arm: int, stage: str, words: str, phases: list[str]) -> None:
    world = several()
    for before, name in ((0, "domain"), (0, "task"), (1, "domain"), (1, "task"), (2, "task")):
        if (before, name) <= (arm, stage):
            tell(world, live(world, train(5, 10.0, name, arm=before), pace=0.1), 20)
    assert (world.status["progress"]["arm"], world.status["currentStage"]) == (words, stage)
    assert world.status["summary"]["stage"] == f"{words}: {stage}", "what kubectl's column shows"
    assert [each["phase"] for each in world.status["stages"]] == phases


def test_no_seed_is_named_until_the_next_pod_has_spoken() -> None:
    """The stages ask for different GPUs: where a pod has trained the first for the last seed, another begins the second for the first."""
    world = several(resources={"gpus": 1})
    (first,) = world.pods
    update = train(5, 30.0, "domain", arm=1, tokens_per_second=100.0)
    tell(world, live(world, update, pace=0.1), 20)
    assert world.status["summary"]["stage"] == "seed 2: domain"
    world.live = live(world, update)
    world.end(first, 0, result())
    world.step(1)
    world.run()
    world.settle(1)
    assert (world.status["phase"], world.status["summary"]["stage"]) == ("Running", "task")
    assert "tokensPerSecond" not in world.status["progress"]
    world.live = live(world, train(1, 40.0, "task", arm=0))
    world.settle(20)
    assert world.status["summary"]["stage"] == "seed 1: task"
    world.live = None
    world.settle(20)
    assert world.status["summary"]["stage"] == "seed 1: task", "an operator that has just started has heard nothing"


def test_what_seeds_and_a_comparison_came_to_is_in_the_status_and_told_once() -> None:
    world = several()
    seeds = {
        "published": 2,
        "metric": "eval_loss",
        "scores": [{"seed": 1, "value": 3.2}, {"seed": 2, "value": 3.1}],
        "reason": "seed 2 has the lowest",
    }
    direct = {"stage": "task", "value": 3.0, "gain": -0.1, "low": -0.2, "high": -0.05, "verdict": "Hurt"}
    over = {"mean": 3.15, "deviation": 0.07, "low": 2.5, "high": 3.8}
    entry = {"suite": "test", "metric": "loss", "stages": [{"stage": "task", "value": 3.1}], "seeds": over, "direct": direct}
    (name,) = world.pods
    world.live = live(world, ProgressUpdate(activity=Activity.PUBLISH, arm=1, percent=99.0))
    world.end(name, 0, published(seeds=seeds, evaluation=[entry]))
    world.settle(5)
    assert world.status["seeds"] == seeds
    assert (world.status["evaluation"][0]["seeds"], world.status["evaluation"][0]["direct"]) == (over, direct)
    assert "arm" not in world.status["progress"] and "stage" not in world.status["summary"]
    assert [note for note in world.notes if note in ("SeedChosen", "StagingCompared")] == ["SeedChosen", "StagingCompared"]
    assert any("test loss: -0.1 (-0.2 to -0.05)" in text for text in world.told)
