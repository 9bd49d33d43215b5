"""What the metrics keep of jobs: bounded, gone with the job, and counted once whoever wrote it."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from finetune_operator.index import Index
from finetune_operator.kinds import FINE_TUNE_JOB
from finetune_operator.metrics import catalogue
from finetune_operator.metrics.catalogue import KEPT_SECONDS, MOST_CHARACTERS, MOST_JOBS, MOST_MEASURED
from finetune_operator.metrics.collectors import Jobs
from finetune_operator.metrics.figures import label
from finetune_operator.metrics.ledger import Ledger

Body = dict[str, Any]
MADE = "2026-11-22T12:00:00Z"
NOON = 1795348800.0


class Place:
    """An index with a ledger, a clock that tests set, and what a scrape shows."""

    def __init__(self) -> None:
        self.time = NOON
        self.left: list[tuple[str, float]] = []
        self.ledger = Ledger(now=lambda: self.time, left=lambda phase, seconds: self.left.append((phase, seconds)))
        self.index = Index(self.ledger)
        self.registry = CollectorRegistry()
        self.registry.register(Jobs(self.ledger, lambda: self.time))
        self.version = 0

    def saw(self, name: str = "support", uid: str = "j1", namespace: str = "team-a", **status: Any) -> None:
        self.version += 1
        metadata = {"name": name, "namespace": namespace, "uid": uid, "resourceVersion": str(self.version), "creationTimestamp": MADE}
        body = {"metadata": metadata, "spec": {"model": {"uri": "hf://owner/model"}}, "status": status}
        self.index.put(FINE_TUNE_JOB, body, watched=True)

    def told(self) -> dict[str, float]:
        """Value by `name{label="value",...}`, without what is 0 of closed lists."""
        self.ledger.tidy()
        text = generate_latest(self.registry).decode()
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        return {f"{each.name}{list(each.labels.values())}": each.value for each in samples}

    def of(self, metric: catalogue.Metric, *labels: str) -> float | None:
        # The parser gives labels in the order of the text, which is that of their names.
        values = [value for _, value in sorted(zip(metric.labels, labels, strict=True))]
        return self.told().get(f"{metric.name}{values}")


def condition(kind: str, status: str, reason: str = "Because", at: str = MADE) -> Body:
    return {"type": kind, "status": status, "reason": reason, "lastTransitionTime": at}


def attempt(pod: str, reason: str | None) -> Body:
    return {"job": "ft-1", "pod": pod} | ({"finishedAt": MADE, "reason": reason} if reason else {})


FAILED = [condition("Failed", "True"), condition("Finished", "True")]
SUCCEEDED = [condition("Finished", "True")]


def test_a_running_job_tells_its_progress() -> None:
    place = Place()
    progress = {"percent": 41, "step": 410, "totalSteps": 1000, "loss": 0.81, "etaSeconds": 60, "tokensPerSecond": 5.5, "updatedAt": MADE}
    place.saw(phase="Running", currentStage="task", progress=progress, usage={"gpuSeconds": 10.5, "gpuSecondsLost": 2})
    wanted = {
        catalogue.JOB_PROGRESS: 0.41,
        catalogue.JOB_STEP: 410,
        catalogue.JOB_STEPS: 1000,
        catalogue.JOB_LOSS: 0.81,
        catalogue.JOB_ETA: 60,
        catalogue.JOB_TOKENS: 5.5,
        catalogue.JOB_REPORTED: NOON,
        catalogue.JOB_CREATED: NOON,
        catalogue.JOB_GPU_SECONDS: 10.5,
        catalogue.JOB_GPU_SECONDS_LOST: 2,
    }
    assert {metric: place.of(metric, "team-a", "support") for metric in wanted} == wanted
    assert place.of(catalogue.JOB_INFO, "team-a", "support", "Running", "task", "hf://owner/model", "", "", "") == 1
    assert place.of(catalogue.JOBS, "team-a", "Running") == 1


def test_a_gpu_tells_its_memory_and_how_busy_it_is() -> None:
    place = Place()
    running = {"gpuMemoryBytes": 40, "gpuMemoryPeakBytes": 48, "gpuMemoryTotalBytes": 80, "gpuUtilizationPercent": 97}
    wanted = {
        catalogue.JOB_GPU_MEMORY: 40.0,
        catalogue.JOB_GPU_MEMORY_PEAK: 48.0,
        catalogue.JOB_GPU_MEMORY_TOTAL: 80.0,
        catalogue.JOB_GPU_UTILIZATION: 0.97,
    }
    place.saw(phase="Running", progress=running)
    assert {metric: place.of(metric, "team-a", "support") for metric in wanted} == wanted
    place.saw(phase="Running", progress={"percent": 1})
    assert {place.of(metric, "team-a", "support") for metric in wanted} == {None}


def test_learning_rate_and_gradient_are_those_of_the_stage_that_runs() -> None:
    place = Place()
    stages = [{"name": name, "metrics": {"learning_rate": rate, "grad_norm": 1.5}} for name, rate in (("domain", 1e-4), ("task", 1e-5))]
    place.saw(phase="Running", currentStage="task", stages=stages)
    assert place.of(catalogue.JOB_LEARNING_RATE, "team-a", "support") == 1e-5
    assert place.of(catalogue.JOB_GRADIENT_NORM, "team-a", "support") == 1.5
    assert place.of(catalogue.JOB_STAGE, "team-a", "support", "domain", "learning_rate") == 1e-4
    place.saw(phase="Succeeded", conditions=SUCCEEDED, stages=stages)
    assert place.of(catalogue.JOB_LEARNING_RATE, "team-a", "support") is None


def test_a_job_without_a_status_is_new() -> None:
    place = Place()
    place.saw()
    assert place.of(catalogue.JOBS, "team-a", "New") == 1


@pytest.mark.parametrize(
    ("conditions", "reason"),
    [
        ([condition("Accepted", "True"), condition("Running", "False", "Unschedulable")], "Unschedulable"),
        ([condition("Accepted", "False", "RuntimeNotFound"), condition("Running", "False", "Other")], "RuntimeNotFound"),
        ([condition("Running", "True")], None),
        ([condition("Running", "False"), condition("Suspended", "True")], None),
        ([condition("Running", "False"), condition("Finished", "True")], None),
    ],
    ids=["waits", "is not accepted", "runs", "is suspended", "has ended"],
)
def test_why_a_job_waits(conditions: list[Body], reason: str | None) -> None:
    place = Place()
    place.saw(phase="Pending", conditions=conditions)
    told = {name: value for name, value in place.told().items() if name.startswith("finetune_jobs_waiting")}
    assert told == ({f"finetune_jobs_waiting['team-a', '{reason}']": 1.0} if reason else {})


@pytest.mark.parametrize(
    ("running", "warnings", "reasons"),
    [
        (condition("Running", "True", "Training"), [], []),
        (condition("Running", "True", "NoProgress"), [], ["NoProgress"]),
        (condition("Running", "True", "NoProgress"), ["LossFlat"], ["LossFlat", "NoProgress"]),
        (condition("Running", "True", "Training"), ["GapOpening", "Whatever"], ["GapOpening"]),
        (condition("Running", "False", "BackOff"), [], []),
    ],
    ids=["all is well", "silent", "silent and flat", "a warning, and a word that nobody knows", "it backs off"],
)
def test_what_trainers_notice(running: Body, warnings: list[str], reasons: list[str]) -> None:
    place = Place()
    place.saw(phase="Running", conditions=[running], warnings=[{"reason": each, "message": ""} for each in warnings])
    told = {name: value for name, value in place.told().items() if name.startswith("finetune_jobs_noticed")}
    assert told == {f"finetune_jobs_noticed['team-a', '{reason}']": 1.0 for reason in reasons}


def test_evaluation_tells_base_last_stage_and_gate() -> None:
    place = Place()
    stages = [{"stage": "domain", "value": 3.0}, {"stage": "task", "value": 2.0}, {"stage": "later"}]
    place.saw(evaluation=[{"suite": "in", "metric": "loss", "baseline": 5.0, "stages": stages, "gate": "Passed"}])
    assert place.of(catalogue.JOB_EVALUATION, "team-a", "support", "in", "loss", "baseline") == 5.0
    assert place.of(catalogue.JOB_EVALUATION, "team-a", "support", "in", "loss", "last") == 2.0
    assert place.of(catalogue.JOB_GATE, "team-a", "support", "in", "loss") == 1


def test_a_jobs_series_are_bounded_and_those_of_gates_stay() -> None:
    place = Place()
    entries = [{"suite": f"s{number}", "metric": "loss", "baseline": 1.0} for number in range(300)]
    metrics = {f"m{number}": 1.0 for number in range(32)}
    place.saw(
        evaluation=[*entries, {"suite": "gated", "metric": "loss", "baseline": 1.0, "gate": "Failed"}],
        stages=[{"name": f"stage-{number}", "metrics": metrics} for number in range(16)],
    )
    own = [name for name in place.told() if "'support'" in name]
    assert sum(name.startswith(catalogue.JOB_EVALUATION.name) for name in own) == MOST_MEASURED
    assert len(own) < 130
    assert place.of(catalogue.JOB_GATE, "team-a", "support", "gated", "loss") == 0


def test_no_series_of_a_job_outlives_it_and_its_namespaces_totals_an_hour() -> None:
    place = Place()
    before = place.told()
    place.saw(phase="Running", conditions=[condition("Running", "True")], usage={"gpuSeconds": 1.0})
    place.index.drop("j1")
    assert not [name for name in place.told() if "'support'" in name]
    assert place.of(catalogue.GPU_SECONDS, "team-a") == 0
    place.time += KEPT_SECONDS + 1
    assert place.told() == before


def test_a_job_made_again_under_its_name_takes_the_series_over() -> None:
    place = Place()
    place.saw(uid="j1", progress={"percent": 90})
    place.saw(uid="j2", progress={"percent": 1})
    place.index.drop("j1")
    assert place.of(catalogue.JOB_PROGRESS, "team-a", "support") == 0.01
    place.index.drop("j2")
    assert place.of(catalogue.JOB_PROGRESS, "team-a", "support") is None


def test_an_ended_job_keeps_its_series_an_hour_and_its_place_among_all() -> None:
    place = Place()
    place.saw(phase="Succeeded", conditions=SUCCEEDED)
    place.time += KEPT_SECONDS - 1
    assert place.of(catalogue.JOB_FINISHED, "team-a", "support") == NOON
    place.time += 2
    assert place.of(catalogue.JOB_FINISHED, "team-a", "support") is None
    assert place.of(catalogue.JOBS, "team-a", "Succeeded") == 1


def test_more_jobs_than_are_told_one_by_one() -> None:
    place = Place()
    place.saw("ended", "ended", phase="Succeeded", conditions=SUCCEEDED)
    for number in range(MOST_JOBS):
        place.saw(f"job-{number}", f"uid-{number}", phase="Running")
    told = place.told()
    assert sum(name.startswith(catalogue.JOB_INFO.name) for name in told) == MOST_JOBS
    assert told[f"{catalogue.JOBS_UNTOLD.name}[]"] == 1
    assert not [name for name in told if "'ended'" in name]


def test_of_more_jobs_that_ended_the_last_are_kept() -> None:
    place = Place()
    for number in range(MOST_JOBS + 2):
        place.saw(f"job-{number}", f"uid-{number}", phase="Succeeded", conditions=SUCCEEDED)
    assert place.of(catalogue.JOBS_UNTOLD) == 2
    kept = {key.name for key, figures in place.ledger.jobs() if figures.samples}
    assert {"job-0", "job-1"}.isdisjoint(kept)
    assert len(kept) == MOST_JOBS


def test_gpu_seconds_add_up_from_what_a_former_operator_told() -> None:
    place = Place()
    place.saw(phase="Running", usage={"gpuSeconds": 100.0, "gpuSecondsLost": 10.0})
    assert place.of(catalogue.GPU_SECONDS, "team-a") == 0
    place.saw(phase="Running", usage={"gpuSeconds": 160.0, "gpuSecondsLost": 15.0})
    place.saw("other", "j2", phase="Running")
    place.saw("other", "j2", phase="Running", usage={"gpuSeconds": 7.0})
    place.index.drop("j1")
    assert place.of(catalogue.GPU_SECONDS, "team-a") == 67
    assert place.of(catalogue.GPU_SECONDS_LOST, "team-a") == 5


def test_each_end_counts_once() -> None:
    place = Place()
    place.saw(phase="Running", attempts=[attempt("a", "Evicted"), attempt("b", None)])
    for _ in range(2):
        place.saw(phase="Running", attempts=[attempt("a", "Evicted"), attempt("b", "OutOfMemory"), attempt("c", None)])
    for _ in range(2):
        ended = [attempt("b", "OutOfMemory"), attempt("c", "no such reason")]
        place.saw(phase="Failed", conditions=FAILED, attempts=ended, failure={"reason": "OutOfMemory"})
    assert (place.of(catalogue.ATTEMPTS, "Evicted"), place.of(catalogue.ATTEMPTS, "OutOfMemory")) == (0, 1)
    assert place.of(catalogue.ATTEMPTS, "Other") == 1
    assert place.of(catalogue.JOBS_FAILED, "OutOfMemory") == 1
    assert place.of(catalogue.JOBS_FINISHED, "team-a", "Failed") == 1
    assert place.of(catalogue.JOBS_FINISHED, "team-a", "Succeeded") == 0


def test_what_ended_before_the_operator_began_is_not_counted() -> None:
    place = Place()
    place.saw(phase="Succeeded", conditions=SUCCEEDED, attempts=[attempt("a", "Succeeded")])
    assert place.of(catalogue.JOBS_FINISHED, "team-a", "Succeeded") == 0
    assert place.of(catalogue.ATTEMPTS, "Succeeded") == 0


def test_time_in_a_phase_is_told_when_it_is_left() -> None:
    place = Place()
    place.saw()
    place.saw(phase="Pending")
    place.time += 5
    place.saw(phase="Running")
    place.time += 60
    place.saw(phase="Succeeded", conditions=SUCCEEDED)
    assert place.left == [("Pending", 5), ("Running", 60)]


def test_a_phase_that_began_before_the_operator_counts_from_its_condition() -> None:
    place = Place()
    place.time += 100
    place.saw(phase="Running", conditions=[condition("Running", "True")])
    place.saw(phase="Suspended", conditions=[condition("Running", "False")])
    assert place.left == [("Running", 100)]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('a "quoted" \\ name', 'a "quoted" \\ name'),
        ("modèle-日本-🦙", "modèle-日本-🦙"),
        ("line\nbreak\x00\x1b[31m", "line break  [31m"),
        ("\u202edlrow", " dlrow"),
        ("a\ud800b", "a b"),
        (None, ""),
        ("x" * 200, "x" * (MOST_CHARACTERS - 1) + "…"),
    ],
    ids=["quotes", "any script", "control characters", "a change of direction", "half a surrogate", "nothing", "too long"],
)
def test_a_label_takes_any_text(text: str | None, value: str) -> None:
    assert label(text) == value
    place = Place()
    metadata = {"name": "support", "namespace": "team-a", "uid": "j1"}
    place.ledger.saw(
        {"metadata": metadata, "spec": {"model": {"uri": "hf://owner/model"}}, "status": {"phase": "Running", "currentStage": text}}
    )
    assert place.of(catalogue.JOB_INFO, "team-a", "support", "Running", value, "hf://owner/model", "", "", "") == 1
