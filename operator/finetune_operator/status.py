"""A step becomes a decision: the whole new status, or none where nothing needs telling yet, and the events that go with it.

Everything here follows from the job, its children, and the status that stands: the same world gives the same status, to the byte.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from finetune_api import arms
from finetune_api import constants as c
from finetune_api.constants import AttemptReason, ConditionType, EventReason
from finetune_api.v1alpha1.status import Phase
from finetune_api.wire import RunResult, SegmentKind
from finetune_operator.attempts import Attempt, History, Spent
from finetune_operator.case import Case, Step, segment_word
from finetune_operator.conditions import conditions
from finetune_operator.messages import read_result
from finetune_operator.model import Decision, Live, Note, Observed, Severity
from finetune_operator.names import REPORT
from finetune_operator.progress import fold
from finetune_operator.views import condition

Fields = dict[str, Any]
_LARGEST = 2**63 - 1


def answer(seen: Observed, step: Step, case: Case | None = None) -> Decision:
    """Return the decision that a step stands for. Without a case (the job is not accepted) the rest of the status stays as it is."""
    if step.needs:
        return Decision(needs=step.needs)
    old: Mapping[str, Any] = seen.job.get("status") or {}
    generation = int(seen.job["metadata"].get("generation") or 1)
    status = _status(seen, step, case, None)
    if step.quiet and _may_wait(old, status, generation):
        return Decision(actions=step.actions, requeue_after=step.requeue_after)
    live = fold.newest(case) if case is not None else None
    if live is not None and (status != old or live.due):
        # What a pod reported goes along with whatever is written anyway; by itself it waits for its turn.
        told = _status(seen, step, case, live)
        only_progress = status == old and not step.actions
        if not (only_progress and _tells_nothing_new(old, told)):
            status = told
    return Decision(actions=step.actions, status=status, notes=_notes(old, status, step), requeue_after=step.requeue_after)


def _status(seen: Observed, step: Step, case: Case | None, live: Live | None) -> Fields:
    """The whole status; without a report (live None) the progress stays as it stands."""
    old: Mapping[str, Any] = seen.job.get("status") or {}
    generation = int(seen.job["metadata"].get("generation") or 1)
    status: Fields = {
        **old,
        "observedGeneration": generation,
        "phase": step.phase.value,
        "conditions": conditions(step, old, now=seen.now, generation=generation),
        **(_of_case(case, step, old, live) if case is not None else {}),
    }
    return {name: value for name, value in status.items() if value is not None and value not in ({}, [])}


def _tells_nothing_new(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether a status differs from the one that stands in nothing but when it was true."""
    return fold.same(old.get("progress") or {}, new.get("progress") or {}) and {**new, "progress": None} == {**old, "progress": None}


def _may_wait(old: Mapping[str, Any], new: Mapping[str, Any], generation: int) -> bool:
    """Whether a status that tells nothing urgent may be left for the next one.

    Not where a change of the spec waits to be seen, and not where an attempt was cut short: its pod may be gone a moment later, and with it
    what it said.
    """
    known = {(each.get("job"), each.get("pod")) for each in old.get("attempts") or [] if each.get("finishedAt")}
    ended = [each for each in new.get("attempts") or [] if each.get("finishedAt") and (each.get("job"), each.get("pod")) not in known]
    cut_short = any(each.get("reason") != AttemptReason.SUCCEEDED for each in ended)
    return not cut_short and old.get("observedGeneration") in (None, -1, generation)


def _of_case(case: Case, step: Step, old: Mapping[str, Any], live: Live | None) -> Fields:
    history = case.history.intending(step.intents).reporting(live)
    fields: Fields = {
        "currentStage": None,
        "attempts": _attempts(case, history),
        "budgets": _budgets(case, history),
        "usage": _usage(history),
        "failure": step.failure.model_dump(mode="json", exclude_none=True) if step.failure is not None else None,
    }
    if step.accepted:
        fields["runtime"] = case.parts.snapshot.status()
    stages = _stages(case, step, old, live)
    evaluation = _dumped(step.result, "evaluation") or old.get("evaluation")
    if not (step.succeeded or step.failure) and case.current is not None and case.current.segment.kind is SegmentKind.TRAIN:
        fields["currentStage"] = next(
            (stage["name"] for stage in stages if stage["name"] in case.current.segment.stages and stage["phase"] != Phase.SUCCEEDED), None
        )
    progress = fold.progress(case, step, old, live)
    at_work = arms.placed(progress.get("arm", ""), fields["currentStage"]) if fields["currentStage"] else None
    return {
        **fields,
        "progress": progress,
        "warnings": fold.warnings(step, old, live),
        "stages": stages,
        "evaluation": evaluation,
        "seeds": _dumped(step.result, "seeds") or old.get("seeds"),
        "artifacts": _dumped(step.result, "artifacts") or old.get("artifacts"),
        "provenance": _dumped(step.result, "provenance") or old.get("provenance"),
        "summary": _summary(case, history, evaluation or [], at_work),
    }


def _usage(history: History) -> Fields:
    """What the attempts cost that are over; nothing before the first of them is."""
    if not any(attempt.finished is not None for attempt in history.attempts):
        return {}
    return {
        "gpuSeconds": round(history.gpu_seconds, 1),
        "runningSeconds": round(history.running_seconds, 1),
        "gpuSecondsLost": round(history.gpu_seconds_lost, 1),
    }


def _dumped(result: RunResult | None, field: str) -> Any:
    """A part of a result as a status holds it."""
    return finite(result.model_dump(mode="json", exclude_none=True).get(field)) if result is not None else None


def finite(value: Any) -> Any:
    """The same without numbers that JSON does not have, and without whole ones beyond 64 bits: either would make every later write fail."""
    if isinstance(value, dict):
        kept = {name: finite(each) for name, each in value.items() if not isinstance(each, float) or math.isfinite(each)}
        return {name: each for name, each in kept.items() if each is not None}
    if isinstance(value, list):
        return [finite(each) for each in value]
    return max(-_LARGEST, min(_LARGEST, value)) if isinstance(value, int) and abs(value) > _LARGEST else value


def _words(case: Case) -> dict[int | None, str]:
    return {None: REPORT, **{config.segment.index: segment_word(config) for config in case.configs}}


def _attempts(case: Case, history: History) -> list[Fields]:
    words = _words(case)
    listed = [finite(attempt.status(words.get(attempt.identity.segment, ""))) for attempt in history.attempts]
    return listed[-c.MAX_ATTEMPTS_LISTED :]


def _budgets(case: Case, history: History) -> list[Fields]:
    words = _words(case)
    budgets = []
    for index, spent in sorted(history.spent.items(), key=lambda item: (item[0] is None, item[0] or 0)):
        if spent != Spent() and index in words:
            place = {"index": index} if index is not None else {}
            budgets.append({"segment": words[index], **place, "attempts": spent.attempts, "preemptions": spent.preemptions})
    return budgets


def _stages(case: Case, step: Step, old: Mapping[str, Any], live: Live | None) -> list[Fields]:
    """Each stage: as the newest trainer that ended told it, else as it was known; what is running and what is done is known here.

    A trainer is heard when its end is news. Its pod may be there for long, with words that others have overtaken whose pods are gone: those
    of the pod that prepared, which has seen no stage begin.
    """
    known: dict[str, Fields] = {stage["name"]: stage for stage in old.get("stages") or [] if "name" in stage}
    heard = {(each.get("job"), each.get("pod")) for each in old.get("attempts") or [] if each.get("finishedAt")} if known else set()
    news = [result for attempt, result in _results(case) if attempt.key not in heard]
    for result in (*news, *([step.result] if step.result is not None else [])):
        for ended in result.stages:
            told = finite(ended.status.model_dump(mode="json", exclude_none=True))
            known[ended.status.name] = told | {"metrics": _last_figures(known.get(ended.status.name)) | told.get("metrics", {})}
    last = _last_word(case, live)
    for name, said in fold.stages(case, live).items():
        before = known.get(name, {})
        known[name] = {**before, **said, "metrics": {**before.get("metrics", {}), **said.get("metrics", {}), **last.get(name, {})}}
    current = case.current
    stages: list[Fields] = []
    for config in case.configs:
        for name in config.segment.stages if config.segment.kind is SegmentKind.TRAIN else []:
            stage = {"phase": Phase.PENDING.value, **known.get(name, {}), "name": name}
            if current is None or config.segment.index < current.segment.index:
                stage["phase"] = Phase.SUCCEEDED.value
            elif config is current:
                begun = any(attempt.started is not None for attempt in case.history.of(config.segment.index))
                stage["phase"] = _phase_now(stage, stages, step, begun=begun)
            stages.append({field: value for field, value in stage.items() if value not in (0, {})})
    return stages


def _last_figures(stage: Fields | None) -> Fields:
    """The figures of the training steps that a stage showed while it ran: a trainer's result has a loss only of a stage that ended."""
    return {name: value for name, value in (stage or {}).get("metrics", {}).items() if name in c.LIVE_METRICS}


def _last_word(case: Case, live: Live | None) -> Mapping[str, Fields]:
    """The metrics of the stages that ended in the pod that reported, by its result: more than its last report, which is of one step and one arm."""
    own = [result for attempt, result in _results(case) if live is not None and attempt.key == (live.job, live.pod)]
    return {stage.status.name: finite(dict(stage.status.metrics)) for result in own for stage in result.stages}


def _phase_now(stage: Fields, before: list[Fields], step: Step, *, begun: bool) -> str:
    """The first stage of the segment at work that is not done is the one that runs, that is suspended, or that the job failed in."""
    if stage["phase"] == Phase.SUCCEEDED:
        return Phase.SUCCEEDED.value
    if any(other["phase"] != Phase.SUCCEEDED for other in before):
        return Phase.PENDING.value
    if step.failure is not None:
        return Phase.FAILED.value
    if step.running:
        return Phase.RUNNING.value
    return step.phase.value if begun and step.phase in (Phase.SUSPENDING, Phase.SUSPENDED) else Phase.PENDING.value


def _results(case: Case) -> list[tuple[Attempt, RunResult]]:
    """What the trainers that ended said, in order."""
    pods = [(attempt, pod) for attempt in case.history.attempts if (pod := case.pod(attempt.job, attempt.pod)) is not None]
    told = [(attempt, read_result(pod.end.message)) for attempt, pod in pods if pod.end is not None]
    return [(attempt, result) for attempt, result in told if result is not None]


def _summary(case: Case, history: History, evaluation: list[Fields], at_work: str | None) -> Fields:
    summary = {
        "stage": at_work,
        "methods": "+".join(stage.method.type.value for stage in case.spec.stages)[:256],
        "queue": case.runtime.queue_name,
        "node": next((attempt.node for attempt in reversed(history.attempts) if attempt.node), None),
        "score": _score(case, evaluation),
    }
    index = (case.current or case.configs[-1]).segment.index
    if history.of(index):
        spent, most = history.spent.get(index, Spent()), case.spec.retry.max_attempts
        summary["attempts"] = f"{min(spent.attempts + 1, most)}/{most}"
    return {name: value for name, value in summary.items() if value}


def _score(case: Case, evaluation: list[Fields]) -> str | None:
    """The first gate's metric, of the base model and of the last stage."""
    gate = next(iter(case.spec.evaluation.gates), None)
    for entry in evaluation if gate is not None else []:
        values = [stage["value"] for stage in entry.get("stages") or [] if stage.get("value") is not None]
        if gate is not None and (entry["suite"], entry["metric"]) == (gate.suite, gate.metric) and values:
            base = f"{entry['baseline']:.4g} → " if entry.get("baseline") is not None else ""
            return f"{entry['metric']} {base}{values[-1]:.4g}"
    return None


def _findings(old: Mapping[str, Any], status: Mapping[str, Any]) -> list[Note]:
    """What several seeds and a comparison came to, once: where a status tells it and the one before did not."""
    notes = []
    if (seeds := status.get("seeds")) and not old.get("seeds"):
        notes.append(Note(Severity.NORMAL, EventReason.SEED_CHOSEN, seeds["reason"][:1024]))
    compared = [each for each in status.get("evaluation") or [] if each.get("direct")]
    if compared and not any(each.get("direct") for each in old.get("evaluation") or []):
        texts = [
            f"{each['suite']} {each['metric']}: {each['direct']['gain']:+.4g} ({each['direct']['low']:+.4g} to {each['direct']['high']:+.4g})"
            for each in compared
        ]
        hurt = any(each["direct"]["verdict"] == "Hurt" for each in compared)
        words = f"what the stages before {compared[0]['direct']['stage']} did, positive is better: {'; '.join(texts)}"
        notes.append(Note(Severity.WARNING if hurt else Severity.NORMAL, EventReason.STAGING_COMPARED, words[:1024]))
    return notes


WARNINGS = frozenset(
    {
        c.ConditionReason.BACK_OFF,
        c.ConditionReason.NODE_SILENT,
        c.ConditionReason.IMAGE_UNAVAILABLE,
        c.ConditionReason.SECRET_MISSING,
        c.ConditionReason.SECRET_KEY_MISSING,
        c.ConditionReason.CLAIM_MISSING,
        c.ConditionReason.CLAIM_TERMINATING,
        c.ConditionReason.CONTAINER_REFUSED,
        c.ConditionReason.LIMIT_RANGE,
        c.ConditionReason.POD_REFUSED,
        c.ConditionReason.CLEANING_UP,
        c.ConditionReason.NO_PROGRESS,
    }
)
"""Reasons to wait for, or of what runs, for which somebody may have to do something."""


def _notes(old: Mapping[str, Any], status: Mapping[str, Any], step: Step) -> tuple[Note, ...]:
    """Return an event where the reason of where the job stands has changed, and one for each warning that is new."""
    reason = step.failure.reason if step.failure is not None else str(step.reason)
    before = condition({"status": old}, ConditionType.RUNNING) or {}
    bad = step.failure is not None or not step.accepted or step.reason in WARNINGS
    stands = (Note(Severity.WARNING if bad else Severity.NORMAL, reason, step.message[:1024]),) if before.get("reason") != reason else ()
    known = {each.get("reason") for each in old.get("warnings") or []}
    new = [each for each in status.get("warnings") or [] if each["reason"] not in known]
    return (*stands, *_findings(old, status), *(Note(Severity.WARNING, each["reason"], each["message"][:1024]) for each in new))
