"""Whether a stage reached what the job asks for. Pure: results in, verdicts out.

A gate is judged on the point estimate, as the API says; the interval stands beside each figure so that a reader sees how sure it is. A gate
whose figures are missing is not passed: it says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from finetune_api.v1alpha1.evaluation import Gate, Metric, RelativeTo
from finetune_trainer.evaluation.metrics import LOWER_IS_BETTER
from finetune_trainer.evaluation.results import Estimate, GateVerdict, PointResult, estimate
from finetune_trainer.evaluation.table import figure

ROUNDING: Final = 1e-9
"""0.50 − 0.45 is less than 0.05 by floating point's rounding; such a result has reached the gate."""


def judge(gates: Sequence[Gate], points: Sequence[PointResult], stage: str, *, stages: Sequence[str]) -> list[GateVerdict]:
    """Judge the gates that belong to `stage` (a gate without a stage belongs to the last of `stages`).

    `points`: what was measured so far, in any order; `stages`: all of the job's, in order.
    """
    return [_verdict(gate, points, stage, stages) for gate in gates if (gate.stage or stages[-1]) == stage]


def reference_stage(gate: Gate, stage: str, stages: Sequence[str]) -> str | None:
    """The stage after which the reference was measured; None is the base model."""
    index = stages.index(stage)
    return stages[index - 1] if gate.relative_to is RelativeTo.PREVIOUS_STAGE and index else None


def _verdict(gate: Gate, points: Sequence[PointResult], stage: str, stages: Sequence[str]) -> GateVerdict:
    against = reference_stage(gate, stage, stages)
    known = {point.stage: point for point in points}
    value, reference = estimate(known.get(stage), gate.suite, gate.metric), estimate(known.get(against), gate.suite, gate.metric)
    against_name = against or "the base model"
    if value is None or reference is None:
        missing, where = (stage, known.get(stage)) if value is None else (against_name, known.get(against))
        return GateVerdict(
            gate=gate,
            stage=stage,
            passed=False,
            value=value,
            reference=reference,
            reference_point=against_name,
            message=f"{gate.suite} {gate.metric}: no figure for {missing}: {_why_missing(gate, where)}. A gate without its figures is not passed.",
        )
    better = (reference.value - value.value) if gate.metric in LOWER_IS_BETTER else (value.value - reference.value)
    required = _required(gate, reference.value)
    passed = better >= required - ROUNDING * max(1.0, abs(reference.value))
    return GateVerdict(
        gate=gate,
        stage=stage,
        passed=passed,
        value=value,
        reference=reference,
        reference_point=against_name,
        improvement=better,
        required=required,
        message=_message(gate, stage, value, reference, against_name, better, required, passed=passed),
    )


def _required(gate: Gate, reference: float) -> float:
    """The least improvement that passes, in the metric's unit; negative for a regression that is let through."""
    change, sign = (gate.min_improvement, 1) if gate.min_improvement is not None else (gate.max_regression, -1)
    if change is None:
        return 0.0
    return sign * (change.absolute if change.absolute is not None else (change.relative or 0.0) * abs(reference))


def _why_missing(gate: Gate, point: PointResult | None) -> str:
    result = point.suite(gate.suite) if point else None
    if result is None:
        return "it was not measured (evaluation.baseline false, or no such suite)"
    return result.not_applicable or "the suite has nothing that this metric counts"


def _message(
    gate: Gate, stage: str, value: Estimate, reference: Estimate, against: str, better: float, required: float, *, passed: bool
) -> str:
    def amount(size: float) -> str:
        return figure(abs(size), gate.metric)

    direction = "better" if better >= 0 else "worse"
    wanted = f"at least {amount(required)} better" if required > 0 else f"at most {amount(required)} worse" if required < 0 else "not worse"
    return (
        f"{gate.suite} {gate.metric} after {stage}: {interval(value, gate.metric)} against {interval(reference, gate.metric)} of {against}: "
        f"{amount(better)} {direction}, {wanted} is asked for: {'passed' if passed else 'failed'}"
    )


def interval(estimate: Estimate, metric: Metric) -> str:
    """A figure with its interval, for a sentence. Example: 3.309 (95 %: 3.210 to 3.410)"""
    return f"{figure(estimate.value, metric)} (95 %: {figure(estimate.low, metric)} to {figure(estimate.high, metric)})"
