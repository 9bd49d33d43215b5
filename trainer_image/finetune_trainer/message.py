"""How a pod tells its end: a termination message of at most 4,096 bytes (Kubernetes keeps no more), always whole JSON.

What does not fit is left out part by part, the longest and least urgent first; a report pod tells it in pages of its own.
"""

from __future__ import annotations

import base64
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from finetune_api.constants import REPORT_PAGES
from finetune_api.v1alpha1.status import EvaluationStatus
from finetune_api.wire import ResultPage, RunResult, StageResult
from finetune_trainer.logs import last_lines

ENVIRONMENT: Final = "FINETUNE_TERMINATION_LOG"
LIMIT: Final = 4096
"""Bytes of a termination message that Kubernetes keeps."""
LOG_LIMIT: Final = 2048
"""Bytes of the last lines of a log, and how many are kept where that is too much beside the rest."""
_SHORT_LOG: Final = 1024
_PAGE: Final = 4000
"""Bytes of base64 a page: what is around them takes less than the rest."""
_LONGEST: Final = 900
"""Bytes that a message or a hint keeps, where it has to be cut."""


def fitted(result: RunResult) -> RunResult:
    """The result, or what of it fits a termination message; `truncated` says whether a report has more to tell."""
    for step in _STEPS:
        if len(encoded(result)) <= LIMIT:
            break
        result = step(result)
    return result


def encoded(result: RunResult) -> bytes:
    """As it is sent: what is not there is not spelt out."""
    return result.model_dump_json(exclude_none=True, exclude_defaults=True).encode()


def _six_digits(result: RunResult) -> RunResult:
    """Figures as a person reads them: a float of 17 digits takes twice the room, and a report pod more than all of it."""
    evaluation = [EvaluationStatus.model_validate(_rounded(one.model_dump(mode="json"))) for one in result.evaluation]
    stages = [
        stage.model_copy(update={"status": stage.status.model_copy(update={"metrics": _rounded(stage.status.metrics)})})
        for stage in result.stages
    ]
    return result.model_copy(update={"evaluation": evaluation, "stages": stages})


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {name: _rounded(inner) for name, inner in value.items()}
    return [_rounded(inner) for inner in value] if isinstance(value, list) else value


def _without_measurements(result: RunResult) -> RunResult:
    return result.model_copy(update={"evaluation": [], "seeds": None, "provenance": None, "truncated": True})


def _cut_texts(result: RunResult) -> RunResult:
    return result.model_copy(update={"message": shortened(result.message), "hint": shortened(result.hint)})


def _without_metrics(result: RunResult) -> RunResult:
    stages = [stage.model_copy(update={"status": stage.status.model_copy(update={"metrics": {}})}) for stage in result.stages]
    return result.model_copy(update={"stages": stages, "truncated": True})


def _only_working_stages(result: RunResult) -> RunResult:
    """The stages that this process worked on, or the last that ended."""
    worked = [stage for stage in result.stages if _tells(stage, result)]
    return result.model_copy(update={"stages": worked, "truncated": True})


def _tells(stage: StageResult, result: RunResult) -> bool:
    return stage.status.name == result.stage or stage.steps_lost is not None


def _short_log(result: RunResult) -> RunResult:
    return result.model_copy(update={"log_tail": last_lines(result.log_tail, _SHORT_LOG)})


def _without_log(result: RunResult) -> RunResult:
    return result.model_copy(update={"log_tail": []})


def _bare(result: RunResult) -> RunResult:
    """Artifacts with URIs of 1,024 characters each: their kinds and hashes are in the report."""
    return result.model_copy(update={"stages": [], "artifacts": [], "truncated": True})


_STEPS: Final[tuple[Callable[[RunResult], RunResult], ...]] = (
    _six_digits,
    _without_measurements,
    _without_metrics,
    _cut_texts,
    _short_log,
    _only_working_stages,
    _without_log,
    _bare,
)


def shortened(text: str, limit: int = _LONGEST) -> str:
    """The beginning and the end of a text of more than `limit` bytes: what was wrong stands first, what to look at often last."""
    data = text.encode()
    if len(data) <= limit:
        return text
    half = (limit - len(" … ".encode())) // 2
    return f"{data[:half].decode('utf-8', 'ignore')} … {data[-half:].decode('utf-8', 'ignore')}"


def tell(data: bytes) -> None:
    """Write the termination message, where this process has one to write. Raises OSError."""
    path = os.environ.get(ENVIRONMENT)
    if path:
        Path(path).write_bytes(data)


def pages(result: RunResult) -> list[ResultPage]:
    """The pages of a result, REPORT_PAGES at most: evaluation is left out from its end, should that ever not be enough."""
    while True:
        data = base64.b64encode(zlib.compress(result.model_dump_json(exclude_none=True, exclude_defaults=True).encode(), 9)).decode()
        parts = [data[start : start + _PAGE] for start in range(0, len(data), _PAGE)]
        if len(parts) <= REPORT_PAGES or not result.evaluation:
            break
        result = result.model_copy(update={"evaluation": result.evaluation[: len(result.evaluation) // 2], "truncated": True})
    return [ResultPage(page=number, pages=len(parts), data=part) for number, part in enumerate(parts)]


def page(result: RunResult, number: int) -> ResultPage:
    """One of them; empty beyond the last."""
    every = pages(result)
    return every[number] if number < len(every) else ResultPage(page=number, pages=len(every), data="")
