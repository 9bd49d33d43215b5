"""What the training loop and its surroundings say to each other."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Protocol

from finetune_trainer.engine.stopping import Verdict

if TYPE_CHECKING:
    from finetune_trainer.engine.trainer import StageTrainer


@dataclass
class LoopState:
    """What the loop remembers from step to step, beside weights, optimizer, schedule and random state."""

    step: int = 0
    """Optimizer steps done."""
    consumed: int = 0
    """Steps' worth of data consumed: the sampler's position."""
    overflows: int = 0
    """fp16 steps skipped in a row."""
    verdict: Verdict = field(default_factory=Verdict)
    """What early stopping knows."""
    metrics: dict[str, float] = field(default_factory=dict)
    """The last measurement on validation rows."""
    terms: dict[str, float] = field(default_factory=dict)
    """What each guard added to the loss of the last step."""
    window_loss: float = 0.0
    """Sum of the losses since the last point of the curve."""
    window_steps: int = 0
    loss: float | None = None
    """The newest point of the curve: the mean over the steps since the point before it. None before there is one."""

    def documents(self) -> dict[str, dict[str, Any]]:
        """By the names of their files in a checkpoint: what each kind of state is can be seen, and dropped in a test, alone."""
        return {
            "loop": {
                "step": self.step,
                "overflows": self.overflows,
                "windowLoss": self.window_loss,
                "windowSteps": self.window_steps,
            },
            "sampler": {"consumed": self.consumed},
            "callbacks": {"verdict": asdict(self.verdict), "metrics": self.metrics, "terms": self.terms, "loss": self.loss},
        }

    @classmethod
    def load(cls, documents: dict[str, dict[str, Any]]) -> LoopState:
        """The inverse of `documents`."""
        loop = documents["loop"]
        return cls(
            step=loop["step"],
            consumed=documents["sampler"]["consumed"],
            overflows=loop["overflows"],
            verdict=Verdict.load(documents["callbacks"]["verdict"]),
            metrics=documents["callbacks"]["metrics"],
            terms=documents["callbacks"].get("terms", {}),
            loss=documents["callbacks"].get("loss"),
            window_loss=loop["windowLoss"],
            window_steps=loop["windowSteps"],
        )


def loop_metrics(loop: LoopState) -> dict[str, float]:
    """What a stage's metrics are: the last measurement on validation rows, and what guards added to the loss (`guard_l2sp`)."""
    return {**loop.metrics, **{f"guard_{name}": value for name, value in loop.terms.items()}}


def final_metrics(loop: LoopState) -> dict[str, float]:
    """What a stage's metrics are once it has ended: `loss` too, the mean over the steps since the curve's last point, or that point's where it
    is the end; None of both only where guards left out all of them. Until then reports tell it step by step."""
    loss = loop.window_loss / loop.window_steps if loop.window_steps else loop.loss
    return {**({} if loss is None else {"loss": loss}), **loop_metrics(loop)}


@dataclass(frozen=True)
class StepFacts:
    """What one optimizer step came to."""

    step: int
    epoch: float
    loss: float
    """Mean over the step's predictions, in nats, without what guards added."""
    gradient_norm: float
    """Before clipping."""
    learning_rate: float
    """With which the step was made."""
    tokens: int
    """Tokens without padding."""
    terms: dict[str, float] = field(default_factory=dict)
    """What each guard added to the loss, which is the task's alone."""
    data_seconds: float = 0.0
    """In which the step waited for its rows: read, put into batches, sent to the device."""


class Ended(Enum):
    """What was done at a step's end, as far as the loop has to know."""

    STEPPED = auto()
    EVALUATED = auto()
    """The model was put into evaluation mode."""


class StageHooks(Protocol):
    """Everything around the loop: files, checkpoints, evaluation, progress, signals."""

    def begin(self, trainer: StageTrainer) -> None:
        """Model, optimizer and schedule stand; a resumed stage is restored here. May evaluate, and raise Stopped."""
        ...

    def consumed(self, step: int, epoch: int, ids: list[list[str]]) -> None:
        """These rows go into step `step` (from 1), batch by batch."""
        ...

    def before_update(self) -> None:
        """Gradients stand; weights and moments are about to change."""
        ...

    def step_ended(self, trainer: StageTrainer, facts: StepFacts) -> Ended:
        """May commit, evaluate, and raise Stopped."""
        ...
