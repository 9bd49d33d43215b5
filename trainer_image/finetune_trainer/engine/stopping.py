"""Early stopping and the best weights: what the evaluations of a stage have shown so far, as data that a checkpoint carries.

The rule is that of transformers' EarlyStoppingCallback; the state is one small document, so that a resumed stage ends at the same step.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from finetune_api.v1alpha1.training import EarlyStopping, EarlyStoppingMetric

LOWER_IS_BETTER: Final = (EarlyStoppingMetric.LOSS, EarlyStoppingMetric.PERPLEXITY)


@dataclass(frozen=True)
class Verdict:
    """What the evaluations have shown."""

    best: float | None = None
    """The best value of the metric, in its own unit."""
    best_step: int | None = None
    stale: int = 0
    """Evaluations since the last improvement."""
    exhausted: bool = False
    """Whether patience is used up."""

    def document(self) -> dict[str, Any]:
        """For the checkpoint."""
        return asdict(self)

    @classmethod
    def load(cls, document: dict[str, Any]) -> Verdict:
        """The inverse of `document`."""
        return cls(**document)


def observe(verdict: Verdict, rule: EarlyStopping, value: float, *, step: int) -> Verdict:
    """Return the verdict after one more evaluation. A value equal to the best is no improvement."""
    sign = -1.0 if rule.metric in LOWER_IS_BETTER else 1.0
    better = verdict.best is None or sign * (value - verdict.best) > 0
    enough = verdict.best is None or sign * (value - verdict.best) > rule.threshold
    stale = 0 if enough else verdict.stale + 1
    kept = replace(verdict, best=value, best_step=step) if better else verdict
    return replace(kept, stale=stale, exhausted=stale >= rule.patience)
