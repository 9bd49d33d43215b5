"""The loss-spike guard: a step whose loss is far above those before it is left out, or made at a lower rate (as PaLM's training skipped
batches at spikes: Chowdhery et al. 2022, arXiv 2204.02311, section 5.1).

Spike: the step's loss is more than `deviations` robust standard deviations (1.4826 times the median distance from the median) above the median
of the last `window` losses that were none, or it is no number. Nothing is judged before ten steps are known. skip: the step's gradients
are dropped; its rows count as consumed. lower: this step and the next `steps` are made at `factor` times the schedule's rate.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from finetune_api.constants import Reason
from finetune_api.v1alpha1.regularization import Guard as Options
from finetune_api.v1alpha1.regularization import SpikeAction
from finetune_trainer.engine.guards import Guard
from finetune_trainer.errors import TrainerError
from finetune_trainer.modeling.stage_model import StageModel

if TYPE_CHECKING:
    from finetune_trainer.engine.trainer import StageTrainer

LEAST: Final = 10
"""Losses that must be known before one is judged."""
MOST_IN_A_ROW: Final = 10
"""Steps in a row that are left out; more are no spike, but a divergence."""
LISTED: Final = 64
LEAST_SPREAD: Final = 0.01
"""Of the median: losses that hardly differ are no measure of what is far."""
NORMAL: Final = 1.4826


class LossSpike(Guard):
    """It remembers the last losses, what it did, and how long a rate stays low; a checkpoint has all of it."""

    name = "lossSpike"

    def __init__(self, options: Options, model: StageModel, *, tokenizer: Any, seed: int, where: str) -> None:
        self._action = options.action or SpikeAction.SKIP
        self._deviations = options.deviations or 6.0
        self._factor = options.factor or 0.1
        self._steps = options.steps or 10
        self._losses: deque[float] = deque(maxlen=options.window or 50)
        self._spikes: list[dict[str, Any]] = []
        self._count = 0
        self._in_a_row = 0
        self._low_until = 0

    def begin(self, trainer: StageTrainer) -> None:
        self._spikes, self._count, self._in_a_row, self._low_until = [], 0, 0, 0
        self._losses.clear()

    def judge(self, step: int, loss: float, ids: Sequence[Sequence[str]]) -> float:
        if not self._is_spike(loss):
            self._in_a_row = 0
            if math.isfinite(loss):
                self._losses.append(loss)
            return self._factor if step <= self._low_until else 1.0
        if not math.isfinite(loss) and self._action is SpikeAction.LOWER:
            return 1.0  # no rate helps against a loss that is no number: the stage ends
        self._count += 1
        self._in_a_row += 1
        self._spikes = [*self._spikes, {"step": step, "loss": loss if math.isfinite(loss) else str(loss)}][-LISTED:]
        what = f"step {step}: the loss of {loss:.4g} is a spike (median of the last {len(self._losses)}: {statistics.median(self._losses):.4g})"
        if self._action is SpikeAction.LOWER:
            self._low_until = step + self._steps
            self.note(f"{what}; this step and the next {self._steps} are made at {self._factor:g} times the learning rate")
            return self._factor
        if self._in_a_row > MOST_IN_A_ROW:
            raise TrainerError(Reason.LOSS_DIVERGED, f"{what}, and so were the {MOST_IN_A_ROW} steps before: this is no spike", step=step)
        self.note(f"{what}; its {sum(len(rows) for rows in ids)} rows are left out")
        return 0.0

    def figure(self) -> float:
        return float(self._count)

    def document(self) -> dict[str, Any]:
        return {
            "losses": list(self._losses),
            "spikes": self._spikes,
            "count": self._count,
            "inARow": self._in_a_row,
            "lowUntil": self._low_until,
        }

    def load(self, document: Mapping[str, Any], tensors: Mapping[str, Any]) -> None:
        self._losses.extend(document["losses"])
        self._spikes, self._count = list(document["spikes"]), document["count"]
        self._in_a_row, self._low_until = document["inARow"], document["lowUntil"]

    def summary(self) -> dict[str, Any]:
        return {"action": self._action.value, "deviations": self._deviations, "spikes": self._count, "steps": self._spikes}

    def _is_spike(self, loss: float) -> bool:
        if len(self._losses) < LEAST:
            return False
        if not math.isfinite(loss):
            return True
        middle = statistics.median(self._losses)
        spread = NORMAL * statistics.median(abs(known - middle) for known in self._losses)
        return loss > middle + self._deviations * max(spread, LEAST_SPREAD * abs(middle))
