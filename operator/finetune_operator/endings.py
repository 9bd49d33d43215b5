"""How a pod ended, in one word, and which budget pays for it. The order of the rules is the order of what is surest."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from finetune_api.constants import PERMANENT_EXIT_CODES, AttemptReason, ClusterReason, ExitCode, Reason
from finetune_api.wire import RunResult
from finetune_operator.messages import read_result
from finetune_operator.views import PodView, Terminated

OOM_KILLED: Final = "OOMKilled"
_TAKEN_BY_KUBELET: Final = ("Evicted", "NodeShutdown", "Terminated", "Shutdown", "Preempting", "NodeLost")
"""Reasons of failed pods of which the kubelet, not the trainer, was the cause."""
_ITS_OWN_LIMIT: Final = re.compile(r"exceeds the (?:total )?limit|exceeded its local ephemeral storage limit")
"""What the kubelet says where a pod was evicted for what it wrote itself, and not for want of the node's."""
_DISRUPTIONS: Final = {"PreemptionByScheduler": AttemptReason.PREEMPTED, "DeletionByPodGC": AttemptReason.NODE_LOST}
_BY_EXIT_CODE: Final = {
    ExitCode.INTERNAL: Reason.INTERNAL_ERROR,
    ExitCode.BAD_CONFIG: Reason.INVALID_SPEC,
    ExitCode.BAD_DATA: Reason.DATA_INVALID,
    ExitCode.NOT_ACCESSIBLE: Reason.SOURCE_NOT_FOUND,
    ExitCode.OUT_OF_MEMORY: Reason.OUT_OF_MEMORY,
    ExitCode.DIVERGED: Reason.LOSS_DIVERGED,
    ExitCode.GATE_FAILED: Reason.GATE_FAILED,
    ExitCode.STORAGE: Reason.STORAGE_FULL,
    ExitCode.NO_CHECKPOINT: Reason.CHECKPOINT_INVALID,
    ExitCode.STALLED: Reason.STALLED,
    ExitCode.STOPPED: Reason.STOPPED,
}
"""What an exit code means where no message says it better."""


class Charge(StrEnum):
    """The budget that an end is charged to."""

    NOTHING = "nothing"
    ATTEMPT = "attempt"
    PREEMPTION = "preemption"


_FREE: Final = {AttemptReason.SUCCEEDED, AttemptReason.SUSPENDED, AttemptReason.SUPERFLUOUS, ClusterReason.DEADLINE_EXCEEDED}
_NOT_THE_USERS: Final = {*AttemptReason} - _FREE | {Reason.STOPPED, Reason.RUN_FOLDER_BUSY}
"""A busy run folder is the process before it, which a silent node still keeps alive: it goes by itself."""


def charge(reason: str) -> Charge:
    """Say which budget pays for an end."""
    if reason in _FREE:
        return Charge.NOTHING
    return Charge.PREEMPTION if reason in _NOT_THE_USERS else Charge.ATTEMPT


def is_permanent(reason: str, exit_code: int | None) -> bool:
    """Whether a repetition would end the same way."""
    if reason == ClusterReason.TOO_MANY_DISRUPTIONS:
        return True
    return exit_code in PERMANENT_EXIT_CODES and charge(reason) is Charge.ATTEMPT


@dataclass(frozen=True)
class Ending:
    reason: str
    exit_code: int | None = None
    result: RunResult | None = None
    """What the trainer said."""


def ending(pod: PodView, *, rebooted: Callable[[], bool]) -> Ending:
    """Say how a pod that is over has ended. `rebooted` tells whether its node started anew since; it is asked only where that decides."""
    end = pod.end
    result = read_result(end.message) if end is not None else None
    code = end.exit_code if end is not None else None
    if pod.phase == "Succeeded":
        return Ending(AttemptReason.SUCCEEDED, 0, result)
    if pod.reason == "Evicted" and _ITS_OWN_LIMIT.search(pod.message):
        return Ending(ClusterReason.LOCAL_STORAGE_EXCEEDED, code, result)
    if pod.disruption is not None:
        return Ending(_DISRUPTIONS.get(pod.disruption, AttemptReason.EVICTED), code, result)
    if end is None or not pod.ran:
        return Ending(AttemptReason.NOT_ADMITTED, None, None)
    if pod.reason in _TAKEN_BY_KUBELET:
        return Ending(AttemptReason.EVICTED, code, result)
    if (said := _by_trainer(end, result)) is not None:
        return Ending(AttemptReason.POD_DELETED if _only_stopped(said, pod) else said, code, result)
    if pod.deleting_until is not None:
        return Ending(AttemptReason.POD_DELETED, code, result)
    if end.reason == OOM_KILLED:
        return Ending(ClusterReason.MEMORY_LIMIT_EXCEEDED, code, result)
    return Ending(AttemptReason.NODE_REBOOTED if rebooted() else ClusterReason.UNKNOWN_EXIT, code, result)


def needs_boot(pod: PodView) -> bool:
    """Whether it must be known if the node was restarted, to say how this pod ended."""
    asked: list[bool] = []

    def rebooted() -> bool:
        asked.append(True)
        return False

    ending(pod, rebooted=rebooted)
    return bool(asked)


def _only_stopped(said: str, pod: PodView) -> bool:
    return said == Reason.STOPPED and pod.deleting_until is not None


def _by_trainer(end: Terminated, result: RunResult | None) -> str | None:
    """Return what the trainer says of its end, None where its exit code is none of the contract's. SIGTERM's 143 and the rest are not."""
    if end.exit_code not in set(ExitCode) or end.exit_code == 0:
        return None
    code = ExitCode(end.exit_code)
    if result is not None and result.reason is not None and result.exit_code is code:
        return result.reason.value
    return _BY_EXIT_CODE[code].value
