"""What the loop asks its guards, one after the other: the one hook through which all of them work."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from finetune_trainer.engine.collate import Batch

if TYPE_CHECKING:
    from finetune_trainer.engine.trainer import StageTrainer


class Guard:
    """Keeps something of the model while a stage trains the rest. What a guard doesn't need to do does nothing.

    What it remembers from step to step is in `document` and `tensors`; a checkpoint has it, and `load` puts it back.
    """

    name: str
    reads_groups = False
    """Whether batches have to tell domain and confounder of their rows."""
    _notes: tuple[str, ...] = ()

    def note(self, text: str) -> None:
        """Say something once: a sentence for the log."""
        self._notes = (*self._notes, text)

    def notes(self) -> list[str]:
        """What was said since the last call."""
        said, self._notes = [f"guard {self.name}: {text}" for text in self._notes], ()
        return said

    def begin(self, trainer: StageTrainer) -> None:
        """The model stands on its device with the weights that the stage starts from. Raises TrainerError."""

    def start(self, trainer: StageTrainer) -> None:
        """What a checkpoint had is restored, and the first step comes. Raises TrainerError."""

    def around(self, model: nn.Module, batch: Batch) -> AbstractContextManager[None]:
        """Open while a batch goes forward and backward."""
        return nullcontext()

    def term(self, model: nn.Module, batch: Batch, logits: torch.Tensor) -> torch.Tensor | None:
        """What the guard adds to the batch's loss: like that, a sum over its predictions. logits: (T, V) or (B, classes), with gradients."""
        return None

    def pull(self, scale: float) -> torch.Tensor | None:
        """Add the gradient of a penalty on the weights, times `scale`, to what stands; returns the penalty. Once an optimizer step."""
        return None

    def judge(self, step: int, loss: float, ids: Sequence[Sequence[str]]) -> float:
        """Say how much of the learning rate the step is made with; 0: it is left out. loss: the task's; ids: its rows. Before it is checked."""
        return 1.0

    def figure(self) -> float | None:
        """A figure of its own, where what it adds to the loss is none."""
        return None

    def figures(self) -> dict[str, float]:
        """More of them, by names of their own."""
        return {}

    def document(self) -> dict[str, Any]:
        """For the checkpoint, as JSON."""
        return {}

    def tensors(self) -> dict[str, torch.Tensor]:
        """For the checkpoint. They may not change in place."""
        return {}

    def load(self, document: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
        """The inverse of both."""

    def summary(self) -> dict[str, Any]:
        """What it came to, for resolved.json."""
        return {}


class Guards:
    """All guards of a stage, in the order of the manifest."""

    def __init__(self, guards: Sequence[Guard] = ()) -> None:
        self._guards = guards
        self.names = [guard.name for guard in guards]

    def begin(self, trainer: StageTrainer) -> None:
        for guard in self._guards:
            guard.begin(trainer)

    def start(self, trainer: StageTrainer) -> None:
        for guard in self._guards:
            guard.start(trainer)

    @contextmanager
    def around(self, model: nn.Module, batch: Batch) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for guard in self._guards:
                stack.enter_context(guard.around(model, batch))
            yield

    def terms(self, model: nn.Module, batch: Batch, logits: torch.Tensor) -> dict[str, torch.Tensor]:
        """What is added to a batch's loss, by guard."""
        found = {guard.name: guard.term(model, batch, logits) for guard in self._guards}
        return {name: term for name, term in found.items() if term is not None}

    def pull(self, scale: float) -> dict[str, torch.Tensor]:
        """Add the gradients of penalties; returns these, by guard."""
        found = {guard.name: guard.pull(scale) for guard in self._guards}
        return {name: penalty for name, penalty in found.items() if penalty is not None}

    def judge(self, step: int, loss: float, ids: Sequence[Sequence[str]]) -> float:
        """The least that any guard leaves of the learning rate."""
        return min((guard.judge(step, loss, ids) for guard in self._guards), default=1.0)

    def figures(self) -> dict[str, float]:
        """Figures by guard (`lossSpike`), and by guard and name (`dann_domain`)."""
        found = {guard.name: guard.figure() for guard in self._guards}
        more = {f"{guard.name}_{name}": figure for guard in self._guards for name, figure in guard.figures().items()}
        return {name: figure for name, figure in found.items() if figure is not None} | more

    def notes(self) -> list[str]:
        return [note for guard in self._guards for note in guard.notes()]

    def documents(self) -> dict[str, Any]:
        """For the checkpoint: by guard, of those that remember something."""
        return {guard.name: document for guard in self._guards if (document := guard.document())}

    def tensors(self) -> dict[str, torch.Tensor]:
        """For the checkpoint: `GUARD/NAME`."""
        return {f"{guard.name}/{name}": tensor for guard in self._guards for name, tensor in guard.tensors().items()}

    def load(self, documents: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
        for guard in self._guards:
            prefix = f"{guard.name}/"
            own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
            guard.load(documents.get(guard.name, {}), own)

    def summary(self) -> dict[str, Any]:
        return {guard.name: guard.summary() for guard in self._guards}
