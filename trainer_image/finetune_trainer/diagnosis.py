"""What the recorded course of a stage says of its training: a loss that rises for long, one that never falls, a validation loss that parts
from it. Pure: figures in, findings out; the same course gives the same findings, on a resume and in the report too.

Training losses are noisy, and a false alarm costs trust. So whole blocks are compared, and a difference counts only where it is both
large (so much of the loss) and certain (so many standard errors). What is found holds until it is clearly over: half of the difference that
raised it. Thresholds are told in docs/explanation/training.md.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from finetune_api.constants import NOTICE_HINTS, NoticeReason
from finetune_api.v1alpha1.stage import Stage
from finetune_api.v1alpha1.training import Training
from finetune_api.wire import Notice
from finetune_trainer.data.order import MEGA_BATCHES
from finetune_trainer.engine.schedule import warmup_steps

# A rising loss
BLOCKS: Final = 8
"""The newest points are cut into so many blocks."""
LEAST_BLOCK: Final = 10
LARGEST_BLOCK: Final = 50
RISES: Final = 3
"""Blocks in a row, each above the one before it; one less where the loss has risen by GREAT_SHARE already."""
GREAT_SHARE: Final = 0.5
RISE_SHARE: Final = 0.10
RISE_LEAST: Final = 0.05
RISE_ERRORS: Final = 4.0

# A loss that does not fall
FLAT_POINTS: Final = 60
FLAT_SHARE: Final = 0.01
FLAT_ERRORS: Final = 2.0
FLAT_AFTER: Final = 0.3
"""Share of the stage's steps, after the warm-up, before anything is said."""
FLAT_LEAST: Final = 0.05
"""A loss below it has nowhere to fall."""
BEGINNING: Final = 10

# A gap between training and validation
GAP_EVALUATIONS: Final = 4
GAP_RISES: Final = 2
GAP_SHARE: Final = 0.03
GAP_LEAST: Final = 0.02

DATA_BOUND: Final = "dataBound"
"""In a line of a curve: that training began to wait for its data, and in which words; null: that it no longer does. Losses don't show it."""
WINDOWS: Final = 4
"""An epoch of fewer windows of groupByLength is compared as a whole: its last, smaller window would count too much."""


@dataclass
class Sums:
    """A series whose means and errors are had at once, of any part."""

    points: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=lambda: [0.0])
    differences: list[float] = field(default_factory=lambda: [0.0])

    def __len__(self) -> int:
        return len(self.points)

    def append(self, value: float) -> None:
        self.differences.append(self.differences[-1] + ((value - self.points[-1]) ** 2 if self.points else 0.0))
        self.values.append(self.values[-1] + value)
        self.points.append(value)

    def mean(self, start: int, end: int) -> float:
        return (self.values[end] - self.values[start]) / (end - start)

    def median(self, start: int, end: int) -> float:
        return statistics.median(self.points[start:end])

    def error(self, start: int, end: int) -> float:
        """The standard error of the mean, of points that do not depend on each other: by the differences of neighbours (von Neumann, 1941), in
        which a trend does not count as noise."""
        count = end - start
        if count < 2:
            return math.inf
        return math.sqrt((self.differences[end] - self.differences[start + 1]) / (2 * (count - 1)) / count)


@dataclass(frozen=True)
class Change:
    """Something began to be so at a step, or ceased to be."""

    step: int
    reason: NoticeReason
    notice: Notice | None
    """None: it is over."""


class Diagnosis:
    """Follows one stage, point by point. `standing`: what is so now."""

    def __init__(self, stage: Stage, *, total_steps: int, steps_per_epoch: int) -> None:
        self._stage = stage
        self._quiet_until = warmup_steps(stage.training, total_steps) + FLAT_AFTER * total_steps
        self._period = math.ceil(period(stage.training, steps_per_epoch) / stage.training.logging_steps)
        self._losses = Sums()
        self._steps: list[int] = []
        self._validations: list[tuple[int, float, int]] = []
        self._low = 0.0
        self.standing: dict[NoticeReason, Notice] = {}

    def notices(self) -> list[Notice]:
        return list(self.standing.values())

    def logged(self, step: int, loss: float) -> list[Change]:
        """Take a point of the training loss: the mean since the last one. Returns what changed."""
        self._losses.append(loss)
        self._steps.append(step)
        rising = self._rising()
        flat = None if rising is not None else self._flat(step)
        return [*self._settle(step, NoticeReason.LOSS_RISING, rising), *self._settle(step, NoticeReason.LOSS_FLAT, flat)]

    def measured(self, step: int, loss: float) -> list[Change]:
        """Take a validation loss. Returns what changed."""
        self._validations.append((step, loss, len(self._losses)))
        return self._settle(step, NoticeReason.GAP_OPENING, self._gap())

    def take(self, point: Mapping[str, Any]) -> list[Change]:
        """Take a line of a stage's curve."""
        step = int(point["step"])
        changes = self.logged(step, float(point["loss"])) if point.get("loss") is not None else []
        return changes + (self.measured(step, float(point["evalLoss"])) if point.get("evalLoss") is not None else [])

    def _settle(self, step: int, reason: NoticeReason, text: str | None) -> list[Change]:
        if (text is not None) == (reason in self.standing):
            return []
        if text is None:
            del self.standing[reason]
            return [Change(step, reason, None)]
        notice = self.standing[reason] = Notice(reason=reason, message=f"stage {self._stage.name}: {text}"[:1024])
        return [Change(step, reason, notice)]

    def _rising(self) -> str | None:
        size = min(LARGEST_BLOCK, max(LEAST_BLOCK, len(self._losses) // BLOCKS))
        size = self._period * math.ceil(size / self._period)
        edges = [len(self._losses) - size * back for back in range(min(BLOCKS, len(self._losses) // size), -1, -1)]
        if len(edges) < RISES + 3:
            return None
        # Medians: a spike of some batches is no rise.
        levels = [self._losses.median(start, end) for start, end in itertools.pairwise(edges)]
        lowest = min(range(len(levels)), key=levels.__getitem__)
        if NoticeReason.LOSS_RISING in self.standing:
            # Until it is back where it was: what has risen for long, and rises no more, is not well.
            low = self._low
            holds = levels[-1] - low > _enough(low, RISE_LEAST, RISE_SHARE) / 2
        else:
            low = self._low = levels[lowest]
            error = math.hypot(self._losses.error(edges[-2], edges[-1]), self._losses.error(edges[lowest], edges[lowest + 1]))
            rises = RISES if levels[-1] - low < GREAT_SHARE * abs(low) else RISES - 1
            climbs = all(before < after for before, after in itertools.pairwise(levels[-rises - 1 :]))
            holds = climbs and levels[-1] - low > max(_enough(low, RISE_LEAST, RISE_SHARE), RISE_ERRORS * error)
        if not holds:
            return None
        return (
            f"the training loss has risen from {low:.4g} around step {self._steps[edges[lowest + 1] - 1]} to {levels[-1]:.4g} at step "
            f"{self._steps[-1]}. {NOTICE_HINTS[NoticeReason.LOSS_RISING]} {self._rate(1 / 3, 'a third')}."
        )

    def _flat(self, step: int) -> str | None:
        count, third = len(self._losses), len(self._losses) // 3
        if count < max(FLAT_POINTS, 6 * self._period) or step < self._quiet_until:
            return None
        third = third // self._period * self._period
        first, last = self._losses.mean(0, third), self._losses.mean(count - third, count)
        error = math.hypot(self._losses.error(0, third), self._losses.error(count - third, count))
        least = FLAT_SHARE * first
        if NoticeReason.LOSS_FLAT in self.standing:
            holds = first - last < least + FLAT_ERRORS * error
        else:
            # A fall of the first few points alone would be lost in the mean of a third.
            beginning = self._period * math.ceil(BEGINNING / self._period)
            begun = self._losses.mean(0, beginning) - last
            early = max(least, 3 * math.hypot(self._losses.error(0, beginning), error))
            # Neither has it fallen and risen again, nor risen: that is another trouble.
            middle = self._losses.mean(third, count - third)
            level = middle > first - least and last < first + least + FLAT_ERRORS * error
            holds = first >= FLAT_LEAST and level and first - last + FLAT_ERRORS * error < least and begun < early
        if not holds:
            return None
        return (
            f"over {step} steps the training loss has fallen by less than {100 * FLAT_SHARE:g} % ({first:.4g} in their first third, {last:.4g} in "
            f"the last). {NOTICE_HINTS[NoticeReason.LOSS_FLAT]} {self._rate(3, 'three times it')}."
        )

    def _gap(self) -> str | None:
        found = self._validations
        if len(found) < GAP_EVALUATIONS:
            return None
        best = min(range(len(found)), key=lambda index: found[index][1])
        (low_step, low, _), (step, now, _) = found[best], found[-1]
        rise, enough = now - low, _enough(low, GAP_LEAST, GAP_SHARE)
        before, since = self._since(best), self._since(len(found) - 1)
        fell = before is not None and since is not None and since < before
        if NoticeReason.GAP_OPENING in self.standing:
            holds = rise > enough / 2
        else:
            climbs = len(found) - 1 - best >= GAP_RISES and all(
                earlier[1] < later[1] for earlier, later in itertools.pairwise(found[-GAP_RISES - 1 :])
            )
            holds = climbs and fell and rise > enough
        if not holds:
            return None
        return (
            f"the validation loss was lowest at step {low_step} ({low:.4g}) and is {now:.4g} at step {step}, while the training loss fell on"
            f"{f' ({before:.4g} → {since:.4g})' if fell else ''}. "
            f"{NOTICE_HINTS[NoticeReason.GAP_OPENING]} training.maxSteps: {low_step}."
        )

    def _since(self, index: int) -> float | None:
        """The mean training loss between an evaluation and the one before it."""
        end = self._validations[index][2]
        start = self._validations[index - 1][2] if index > 0 else 0
        return self._losses.mean(start, end) if end > start else None

    def _rate(self, factor: float, words: str) -> str:
        rate = self._stage.training.learning_rate or 0.0
        return f"{rate * factor:.2g} ({words}; it is {rate:.2g})"


def _enough(low: float, least: float, share: float) -> float:
    """How much above the lowest a loss must be."""
    return max(least, share * abs(low))


def period(training: Training, steps_per_epoch: int) -> int:
    """Steps after which the loss may follow the order of the rows anew. groupByLength sorts within windows, so that it follows the rows' lengths
    in each of them: means are only comparable over whole windows."""
    if not training.group_by_length or training.packing:
        return 1
    window = math.ceil(MEGA_BATCHES / training.accumulation)
    return window if steps_per_epoch > WINDOWS * window else max(1, steps_per_epoch)


def changes(diagnosis: Diagnosis, curve: Iterable[Mapping[str, Any]]) -> list[Change]:
    """Everything that changed in the course of a stage, from the lines of its curve."""
    return [change for point in curve for change in diagnosis.take(point)]
