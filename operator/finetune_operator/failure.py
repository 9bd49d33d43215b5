"""Why a job failed, in the words of whoever knows: the trainer's own message, else what its exit code or the cluster stands for."""

from __future__ import annotations

from finetune_api import constants as c
from finetune_api.constants import CLUSTER_HINTS, REASONS, ClusterReason, ConditionReason, Reason
from finetune_api.shown import page_of, safe
from finetune_api.v1alpha1.status import Failure, Phase
from finetune_api.wire import RunResult
from finetune_operator.attempts import Attempt
from finetune_operator.case import Case, Step
from finetune_operator.messages import fitting, log_lines, read_result, tidy
from finetune_operator.views import Terminated


def failing(case: Case, reason: str, message: str, attempt: Attempt | None = None, result: RunResult | None = None) -> Step:
    """End the job. `attempt` is the one whose words count; `result` is what a report said of it beyond that."""
    end = last_words(case, attempt)
    said = read_result(end.message) if end is not None else None
    told, left_out = fitting(result or said)
    message = safe("; ".join(filter(None, (message, left_out))))[: c.MAX_MESSAGE]
    lines = (tidy(said.log_tail) if said is not None else log_lines(end.message)) if end is not None else []
    failure = Failure.model_validate(
        {
            "reason": reason,
            "stage": said.stage[:256] if said is not None and said.stage is not None else None,
            "message": message,
            "hint": with_page(safe(hint(reason, said)), reason),
            "exitCode": attempt.exit_code if attempt is not None else None,
            "lastLogLines": lines,
        }
    )
    # A condition's reason is one word of a closed list too: the failure's own.
    return Step(Phase.FAILED, ConditionReason.NOT_FINISHED, message, failure=failure, result=told)


def last_words(case: Case, attempt: Attempt | None) -> Terminated | None:
    """Return how the container of an attempt ended, where its pod is still there."""
    pod = case.pod(attempt.job, attempt.pod) if attempt is not None else None
    return pod.end if pod is not None else None


def describe(case: Case, attempt: Attempt) -> str:
    """Say in a sentence how an attempt ended."""
    if attempt.reason == ClusterReason.LOCAL_STORAGE_EXCEEDED:
        evicted = case.pod(attempt.job, attempt.pod)
        said_by = f": {evicted.message.strip().rstrip('.')}" if evicted is not None else ""
        return f"the kubelet evicted the pod for what it wrote to its node's disk or memory{said_by}"
    end = last_words(case, attempt)
    said = read_result(end.message) if end is not None else None
    if said is not None and said.message:
        return said.message
    if attempt.reason == ClusterReason.MEMORY_LIMIT_EXCEEDED:
        return "the kernel killed the trainer: its container reached its memory limit"
    words = f"the trainer ended with exit code {attempt.exit_code}" if attempt.exit_code is not None else "the trainer's end was not seen"
    if said is not None:
        return f"{words}, and its last message says no more"
    if end is not None and end.message.startswith("{"):
        return f"{words}, and its last message is cut"
    return f"{words}, and left no message" if end is not None else words


def with_page(text: str, reason: str) -> str:
    """Add where the docs explain the reason."""
    page = page_of(reason)
    end = f" ({page})" if page else ""
    return text[: c.MAX_MESSAGE - len(end)] + end


def hint(reason: str, said: RunResult | None) -> str:
    """Say what to do: the trainer's advice, else the reason's."""
    if said is not None and said.hint and said.reason == reason:
        return said.hint
    if reason in set(ClusterReason):
        return CLUSTER_HINTS[ClusterReason(reason)]
    return REASONS[Reason(reason)].hint if reason in set(Reason) else ""
