"""What a pod may send: our trainer's own report, or the status of Kubeflow's TrainJob, as transformers' KubeflowCallback posts it."""

from __future__ import annotations

import math
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from finetune_api.wire import Activity, ProgressUpdate
from finetune_operator.progress.refusal import Refusal

PATH: Final = "/v1/progress"
KUBEFLOW_PATH: Final = "/v1/kubeflow/status"
LARGEST: Final = 64 * 1024
"""Bytes of a body. A report has some hundred."""
_NAMES: Final = {
    "loss": "loss",
    "learning_rate": "learning_rate",
    "grad_norm": "grad_norm",
    "current_step": "done",
    "total_steps": "total",
    "current_epoch": "epoch",
    "epoch": "epoch",
}
"""Kubeflow's metrics that are fields of ours; `eval_…` are metrics with us too, and others are left out."""
_WHOLE: Final = frozenset({"done", "total"})
MOST_METRICS: Final = 32


class _Kubeflow(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, extra="ignore", frozen=True, strict=True)


class _Metric(_Kubeflow):
    name: Annotated[str, Field(max_length=256)]
    value: Annotated[str, Field(max_length=256)]


class _TrainerStatus(_Kubeflow):
    progress_percentage: Annotated[int, Field(ge=0, le=100)] | None = None
    metrics: Annotated[list[_Metric], Field(max_length=256)] = []


class _StatusUpdate(_Kubeflow):
    trainer_status: _TrainerStatus


def read_update(body: bytes) -> ProgressUpdate:
    """Read our own report. Raises Refusal: 400 for what is no JSON, 422 for a value out of its bounds."""
    try:
        return ProgressUpdate.model_validate_json(body)
    except ValidationError as error:
        raise _refusal(error) from None


def read_kubeflow(body: bytes) -> ProgressUpdate:
    """Read Kubeflow's status. Its estimate of the time left is not taken: after a resume it is too low. Raises Refusal."""
    try:
        status = _StatusUpdate.model_validate_json(body).trainer_status
        fields: dict[str, Any] = {"activity": Activity.TRAIN, "percent": status.progress_percentage, "metrics": {}}
        for metric in status.metrics:
            number = _number(metric.value)
            if number is None:
                continue
            if (field := _NAMES.get(metric.name)) is not None:
                fields[field] = int(number) if field in _WHOLE else number
            elif metric.name.startswith("eval_") and len(metric.name) <= 64 and len(fields["metrics"]) < MOST_METRICS:
                fields["metrics"][metric.name] = number
        if fields.get("total", 1) < 1:  # an unknown length
            del fields["total"]
        return ProgressUpdate.model_validate(fields)
    except ValidationError as error:
        raise _refusal(error) from None


def _number(text: str) -> float | None:
    """A metric's value; the callback writes `nan` too, and knows no bounds."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and abs(number) <= 1e9 else None


def _refusal(error: ValidationError) -> Refusal:
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    if any(problem["type"] == "json_invalid" for problem in problems):
        return Refusal(400, "the body is no JSON")
    named = "; ".join(f"{'.'.join(map(str, problem['loc'])) or 'body'}: {problem['msg']}" for problem in problems[:5])
    return Refusal(422, f"the report is refused: {named[:500]}")
