"""The end of a job whose segments are done: the result from the trainer's last message, or from a report Job where that could not hold it."""

from __future__ import annotations

from typing import Final

from finetune_api.constants import REPORT_PAGES, AttemptReason, ConditionReason
from finetune_api.v1alpha1.status import Phase
from finetune_api.wire import RunResult
from finetune_operator.attempts import Attempt
from finetune_operator.case import Case, Step
from finetune_operator.messages import fitting, read_report, read_result
from finetune_operator.model import Create
from finetune_operator.policies.watch import starting, watch_job
from finetune_operator.resources.job import build_report_job

REPORT_ATTEMPTS: Final = 3
"""A report that fails this often is given up: the model is there, only the telling failed."""


def conclude(case: Case) -> Step | None:
    """End the job where every segment is done."""
    if case.current is not None:
        return None
    last = [attempt for attempt in case.history.of(case.configs[-1].segment.index) if attempt.reason == AttemptReason.SUCCEEDED]
    told = whole_result(case, last[-1] if last else None)
    if isinstance(told, Step):
        return told
    told, left_out = fitting(told)
    published = len(told.artifacts) if told is not None else 0
    counted = "1 artifact was" if published == 1 else f"{published} artifacts were"
    message = f"{counted} published and verified" if published else "it is done; the result is in the run folder"
    words = "; ".join(filter(None, (message, left_out)))
    return Step(Phase.SUCCEEDED, ConditionReason.SUCCEEDED, words, succeeded=True, result=told)


def whole_result(case: Case, attempt: Attempt | None) -> RunResult | Step | None:
    """Return what the attempt's trainer said in full, None where it can't be had, or the step that asks for it."""
    pod = case.pod(attempt.job, attempt.pod) if attempt is not None else None
    said = read_result(pod.end.message) if pod is not None and pod.end is not None else None
    if said is not None and not said.truncated:
        return said
    if said is None and (attempt is None or attempt.reason != AttemptReason.SUCCEEDED) and case.current is not None:
        return None  # it failed without a word: nothing wrote a result worth a pod
    return _report(case, said)


def _report(case: Case, said: RunResult | None) -> RunResult | Step | None:
    for job in case.reports:
        if job.complete and (told := _pages(case, job.uid)) is not None:
            return told
    alive = [job for job in case.reports if not job.over]
    if alive:
        return watch_job(case, alive[0])
    if len(case.reports) >= REPORT_ATTEMPTS:
        return said
    number = 1 + max([job.identity.number for job in case.reports] + [case.history.highest(None)])
    made = Create(build_report_job(case.parts, case.configs[-1], number))
    return starting(ConditionReason.REPORTING, "the result is to be read from the run folder", made)


def _pages(case: Case, job_uid: str) -> RunResult | None:
    for pod in case.pods:
        if pod.owner == job_uid and pod.phase == "Succeeded" and len(pod.terminated) == REPORT_PAGES:
            return read_report([ended.message for ended in pod.terminated])
    return None
