"""DANN: features that do not tell the domain (Ganin et al. 2016, Domain-Adversarial Training of Neural Networks, arXiv 1505.07818).

A discriminator tells a row's domain from its features: what the classes are read from, or the mean of the last hidden states where tokens are
predicted. On the way back into the model its gradient is turned round and multiplied by λ, which grows with the share p of the
stage that is done, as in the paper: strength · (2 / (1 + exp(−10 p)) − 1).

A confounder goes with the classes, so its discriminator is told the class (Zhang, Lemoine and Mitchell 2018, arXiv 1801.07593, for equalized
odds): what features tell of it beside the class is taken from them, the class is not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import nn

from finetune_api.constants import Reason
from finetune_api.v1alpha1.regularization import Guard as Options
from finetune_api.v1alpha1.stage import Objective
from finetune_trainer.engine.collate import Batch
from finetune_trainer.engine.guards import Guard
from finetune_trainer.engine.losses import unwrapped
from finetune_trainer.errors import TrainerError
from finetune_trainer.guards.discriminator import Discriminator
from finetune_trainer.modeling.stage_model import StageModel

if TYPE_CHECKING:
    from finetune_trainer.engine.trainer import StageTrainer

STEEPNESS: Final = 10.0
CONFOUNDER: Final = "confounder"


class _Reverse(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, features: torch.Tensor, strength: float) -> torch.Tensor:
        context.strength = strength
        return features.view_as(features)

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return -context.strength * gradient, None


def reversed_gradient(features: torch.Tensor, strength: float) -> torch.Tensor:
    """The features; what comes back through them is −strength times the gradient."""
    found: torch.Tensor = _Reverse.apply(features, strength)
    return found


def ramp(progress: float) -> float:
    """The share of the strength at a share of the stage: from 0 at its start to nearly 1."""
    return 2 / (1 + math.exp(-STEEPNESS * progress)) - 1


class Dann(Guard):
    """A discriminator for the domain, another for the confounder, whichever the data names. The rows that they are solved on are in the
    checkpoint, and are thrown away at the stage's end.
    """

    name = "dann"
    reads_groups = True

    def __init__(self, options: Options, model: StageModel, *, tokenizer: Any, seed: int, where: str) -> None:
        self._strength = options.strength or 0.0
        self._where = where
        self._features: torch.Tensor | None = None
        self._seen: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []

    def begin(self, trainer: StageTrainer) -> None:
        if trainer.accelerator.num_processes > 1:
            raise TrainerError(Reason.INVALID_SPEC, "its discriminators learn in one process only: leave dann out", where=self._where)
        self._trainer, model = trainer, unwrapped(trainer.model)
        self._classified = trainer.collator.objective is Objective.CLASSIFICATION
        self._heads = class_heads(model) if self._classified else []
        below = {id(parameter) for parameter in model.base_model.parameters()}
        if not any(id(parameter) in below for parameter in trainer.trainable().values()):
            raise TrainerError(
                Reason.INVALID_SPEC,
                "this stage trains nothing below its head, so its features stay as they are: train more of the model, or leave dann out",
                where=self._where,
            )
        classes = int(model.config.num_labels) if self._classified else 0
        self._names: dict[str, list[str]] = trainer.rows.group_names  # type: ignore[attr-defined]
        self._discriminators = {
            role: Discriminator(len(names), classes=classes if role == CONFOUNDER else 0) for role, names in self._names.items()
        }
        for discriminator in self._discriminators.values():
            discriminator.to(trainer.args.device)

    @contextmanager
    def around(self, model: nn.Module, batch: Batch) -> Iterator[None]:
        def before_head(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            if self._features is None:  # an adapter on the head calls layers of its own after it
                self._features = inputs[0]

        def behind_base(module: nn.Module, inputs: Any, output: Any) -> None:
            self._features = output[0]

        with ExitStack() as stack:
            for head in self._heads:
                stack.callback(head.register_forward_pre_hook(before_head).remove)
            if not self._heads:
                stack.callback(unwrapped(model).base_model.register_forward_hook(behind_base).remove)
            yield
        self._features = None

    def term(self, model: nn.Module, batch: Batch, logits: torch.Tensor) -> torch.Tensor:
        """The discriminators' losses, each at most that of guessing; a row weighs as much as its predictions, however batches are cut."""
        assert self._features is not None and batch.groups is not None, "the batch went through the model, and has groups"
        strength = self._strength * ramp(self._trainer.loop.step / self._trainer.total_steps)
        with torch.autocast(self._features.device.type, enabled=False):
            features = row_features(self._features, batch.lengths, last=self._classified).float()
            classes = batch.targets if self._classified else batch.groups[:, 0]
            self._seen.append((features.detach(), batch.groups, classes))
            turned = reversed_gradient(features, strength)
            losses = [
                discriminator.losses(turned, batch.groups[:, place], classes)
                for place, discriminator in enumerate(self._discriminators.values())
            ]
            weights = torch.ones_like(losses[0]) if self._classified else torch.bincount(batch.rows, minlength=len(features))
            return (torch.stack(losses).sum(0) * weights).sum()

    def pull(self, scale: float) -> None:
        """The discriminators learn, from all rows of the step at once; they are no part of the model, and of no gradient's norm."""
        features, groups, classes = (torch.cat([part[place] for part in self._seen]) for place in range(3))
        self._seen = []
        with torch.autocast(features.device.type, enabled=False):
            for place, discriminator in enumerate(self._discriminators.values()):
                discriminator.learn(features, groups[:, place], classes)

    def figures(self) -> dict[str, float]:
        """The share of rows whose domain (confounder) is told, before they are learned from, and what is told by guessing."""
        found: dict[str, float] = {}
        for role, discriminator in self._discriminators.items():
            found |= {role: float(discriminator.accuracy), f"{role}_chance": discriminator.chance()}
        return found

    def document(self) -> dict[str, Any]:
        return {"groups": self._names}

    def tensors(self) -> dict[str, torch.Tensor]:
        return {f"{role}/{name}": tensor for role, one in self._discriminators.items() for name, tensor in one.remembered().items()}

    def load(self, document: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
        for role, discriminator in self._discriminators.items():
            prefix = f"{role}/"
            discriminator.restore({name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)})

    def summary(self) -> dict[str, Any]:
        return {"strength": self._strength, "groups": self._names, "told": self.figures()}


def class_heads(model: Any) -> list[nn.Module]:
    """The layers that classes are read from: one, or one with its copies where an adapter trains it. Raises TrainerError (ModelUnsupported)."""
    below = {id(module) for module in model.base_model.modules()}
    found: list[nn.Module] = [
        module
        for module in model.modules()
        if isinstance(module, nn.Linear) and module.out_features == model.config.num_labels and id(module) not in below
    ]
    if not found:
        raise TrainerError(Reason.MODEL_UNSUPPORTED, f"{type(model).__name__} reads its classes from no linear layer: leave dann out")
    return found


def row_features(hidden: torch.Tensor, lengths: torch.Tensor, *, last: bool) -> torch.Tensor:
    """(B, H) as it is; of (B, N, H) hidden states of rows with so many tokens (B,) the last one's, or their mean: (B, H)."""
    if hidden.dim() == 2:
        return hidden
    if last:
        return hidden[torch.arange(len(hidden), device=hidden.device), lengths - 1]
    tokens = torch.arange(hidden.shape[1], device=hidden.device) < lengths[:, None]
    return (hidden.float() * tokens[..., None]).sum(1) / lengths[:, None]
