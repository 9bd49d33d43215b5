"""transformers' Trainer with a loop of our own.

Trainer keeps what it does well: the optimizer and its parameter groups, the schedule, device placement, autocast, gradient scaling and the
wrapping for several processes, through accelerate. The loop is replaced because ours differs at every line: data comes by step number (exact
resume without reading what was skipped), the loss is a sum over supervised tokens divided by those of the whole optimizer step, numbers are
checked before they are used, a signal is answered at step ends only, and a step is committed before it is evaluated. It also spends less:
no data loader, no callbacks, one synchronisation with the device a step.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import Trainer, TrainingArguments
from transformers.trainer_utils import TrainOutput

from finetune_api.v1alpha1.stage import Objective
from finetune_trainer.engine.collate import Batch, Collator, Rows
from finetune_trainer.engine.finite import check_losses, check_scale, out_of_memory
from finetune_trainer.engine.groups import split_groups
from finetune_trainer.engine.guards import Guards
from finetune_trainer.engine.hooks import Ended, LoopState, StageHooks, StepFacts
from finetune_trainer.engine.losses import class_logits, token_logits
from finetune_trainer.engine.order import DataOrder
from finetune_trainer.methods.base import Course
from finetune_trainer.pulse import beat


class StageTrainer(Trainer):
    """Trains one stage.

    - `hooks` is told of every step, and commits, evaluates and stops; nothing here touches a file.
    - `loop` is all that the loop itself remembers; a checkpoint carries it beside weights, optimizer, schedule and random state.
    - With several processes each takes its share of the batches, and rank 0's hooks do what is done once.
    """

    def __init__(
        self,
        model: nn.Module,
        arguments: TrainingArguments,
        *,
        rows: Rows,
        order: DataOrder,
        collator: Collator,
        total_steps: int,
        hooks: StageHooks,
        guards: Guards | None = None,
        loop: LoopState | None = None,
        course: Course | None = None,
        rates: Mapping[str, float] | None = None,
        decays: Mapping[str, float] | None = None,
        optimizer: tuple[type[torch.optim.Optimizer], dict[str, Any]] | None = None,
    ) -> None:
        """course: what the method does beside following the gradient. rates: factors of the learning rate, decays: weight decays, by the names
        of parameters. optimizer: another than the arguments name, and its options."""
        super().__init__(model=model, args=arguments, optimizer_cls_and_kwargs=optimizer)
        # Logging, saving, evaluation and progress are the hooks'.
        self.callback_handler.callbacks = []
        self.rows = rows
        self.order = order
        self.collator = collator
        self.total_steps = total_steps
        self.hooks = hooks
        self.guards = guards or Guards()
        self.loop = loop or LoopState()
        self.course = course or Course()
        self._rates = rates or {}
        self._decays = decays or {}
        # Asked once: a course may freeze for a while what the stage trains all in all.
        self._trainable = {name: parameter for name, parameter in self.model.named_parameters() if parameter.requires_grad}

    def trainable(self) -> dict[str, nn.Parameter]:
        """What the stage ever trains, by name."""
        return self._trainable

    def documents(self) -> dict[str, Any]:
        """What the loop and the course remember, by the names of their parts in a checkpoint."""
        course = self.course.document()
        return {**self.loop.documents(), **({"course": course} if course else {})}

    def _inner_training_loop(self, *_: Any, **__: Any) -> TrainOutput:
        self._init_training_state(
            self.total_steps, self.order.steps_per_epoch, math.ceil(self.total_steps / self.order.steps_per_epoch), None, None
        )
        model, _loader = self._prepare_for_training(self.total_steps, None, None)
        self._parameters = list(self.trainable().values())
        self._step_optimizer = self._stepped_optimizer().step
        self.guards.begin(self)
        self.hooks.begin(self)
        self.course.begin(self.loop.step)
        self.guards.start(self)
        model.train()
        while self.loop.step < self.total_steps and not self.loop.verdict.exhausted:
            with out_of_memory(self.loop.step + 1, self.args):
                if self.hooks.step_ended(self, self._optimizer_step(model)) is Ended.EVALUATED:
                    model.train()
        return TrainOutput(self.loop.step, 0.0, {})

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Trainer's optimizer, with the method's learning rates and weight decays."""
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        factors, decays = ({id(self._trainable[name]): value for name, value in own.items()} for own in (self._rates, self._decays))
        decayed = {id(self._trainable[name]) for name in self.get_decay_parameter_names(self.model) if name in self._trainable}
        split_groups(optimizer, factors, decays, decayed)
        return optimizer

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """Trainer's schedule, on the optimizer whose steps it has to see."""
        return super().create_scheduler(num_training_steps, optimizer or self._stepped_optimizer())

    def _stepped_optimizer(self) -> Any:
        """accelerate's optimizer looks for optional packages at every step, and is needed only to skip steps whose scaled gradients overflowed."""
        return self.optimizer if self.accelerator.scaler is not None else self.optimizer.optimizer

    def _optimizer_step(self, model: nn.Module) -> StepFacts:
        number = self.loop.consumed
        plan = self.order.step(number)
        began = time.perf_counter()
        batches = [self._collate(lines, plan.epoch) for lines in plan.batches]
        waited = time.perf_counter() - began
        ids = [batch.ids for batch in batches]
        self.hooks.consumed(number + 1, plan.epoch, ids)
        predictions = self._summed(sum(batch.predictions for batch in batches))
        # Gradients are averaged over processes, while the loss is one mean over all their tokens.
        scale = self.accelerator.num_processes / max(predictions, 1)
        terms: dict[str, torch.Tensor] = {}
        losses = [self._micro_batch(model, batch, scale, terms, last=batch is batches[-1]) for batch in batches]
        if (penalty := self.course.loss()) is not None:
            self.accelerator.backward(penalty)
        penalties = self.guards.pull(self.accelerator.scaler.get_scale() if self.accelerator.scaler is not None else 1.0)

        norm = self.accelerator.clip_grad_norm_(self._parameters, self.args.max_grad_norm or math.inf)
        # The step's one synchronisation with the device.
        *values, norm_value = torch.stack(
            [part.to(losses[0].dtype) for part in (*losses, *terms.values(), *penalties.values(), norm)]
        ).tolist()
        values, added = values[: len(losses)], values[len(losses) :]
        share = self.guards.judge(number + 1, sum(values) / self.accelerator.num_processes, ids)
        if share:
            check_losses(values, norm_value, scaled=self.accelerator.scaler is not None, step=number + 1, ids=ids)
        else:  # left out: for the method's course, a step without a gradient
            torch._foreach_zero_([parameter.grad for parameter in self._parameters if parameter.grad is not None])

        learning_rate = self.lr_scheduler.get_last_lr()[0] * share
        self.hooks.before_update()
        self.course.before_update(number + 1)
        self._update(share)
        skipped = bool(share) and self.accelerator.scaler is not None and self.accelerator.optimizer_step_was_skipped
        if skipped:
            self.loop.overflows += 1
            check_scale(self.loop.overflows, step=number + 1, ids=ids)
        else:
            self.loop.overflows = 0
            self.course.after_update(number + 1)
            self.lr_scheduler.step()
        self.optimizer.zero_grad()

        self.loop.step += 1
        self.loop.consumed += 1
        self.state.global_step = self.loop.step
        self.state.epoch = self.loop.consumed / self.order.steps_per_epoch
        return StepFacts(
            step=self.loop.step,
            epoch=self.state.epoch,
            loss=sum(values) / self.accelerator.num_processes,
            gradient_norm=norm_value,
            learning_rate=learning_rate,
            tokens=sum(batch.tokens for batch in batches) * self.accelerator.num_processes,
            data_seconds=waited,
            terms={name: value for name, value in zip([*terms, *penalties], added, strict=True) if math.isfinite(value)}
            | self.guards.figures(),
        )

    def _update(self, share: float) -> None:
        """Make the step with a share of the schedule's rate; with none of it, leave it out: its gradients are dropped."""
        if not share:
            if self.accelerator.scaler is not None:
                self.accelerator.scaler.update()  # else it refuses the next step: gradients are unscaled once an update
            return
        rates = [group["lr"] for group in self.optimizer.param_groups]
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate if share == 1.0 else rate * share
        self._step_optimizer()
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate

    def _collate(self, lines: list[Any], epoch: int) -> Batch:
        if self.order.packs is not None:
            return self.collator.packed(self.rows, lines).to(self.args.device)
        return self.collator(self.rows, [row for line in lines for row in line], epoch=epoch).to(self.args.device)

    def _micro_batch(self, model: nn.Module, batch: Batch, scale: float, terms: dict[str, torch.Tensor], *, last: bool) -> torch.Tensor:
        """Forward and backward of one micro-batch; returns its share of the step's loss, on the device, and adds guards' shares to `terms`."""
        alone = last or self.accelerator.num_processes == 1
        with contextlib.nullcontext() if alone else self.accelerator.no_sync(model), self.guards.around(model, batch):
            logits = batch_logits(model, batch, self.collator.objective)
            loss = batch_loss(logits, batch, self.args.label_smoothing_factor) * scale
            added = {name: term * scale for name, term in self.guards.terms(model, batch, logits).items()}
            self.accelerator.backward(sum(added.values(), loss))
        for name, term in added.items():
            terms[name] = terms[name] + term.detach() if name in terms else term.detach()
        beat()
        return loss.detach()

    def _summed(self, count: int) -> int:
        """A count over all processes."""
        if self.accelerator.num_processes == 1:
            return count
        return int(self.accelerator.reduce(torch.tensor(count, device=self.args.device), "sum").item())

    def release(self) -> None:
        """Take autocast off the model's forward: whoever uses it next decides in which type it computes."""
        self.accelerator.unwrap_model(self.model_wrapped, keep_fp32_wrapper=False)
        self.accelerator.free_memory()

    def bytes_held(self) -> dict[str, int]:
        """What training holds in memory beside the frozen weights: by kind, in bytes."""
        weights = sum(parameter.nbytes for parameter in self.trainable().values())
        kept = (value.nbytes for state in self.optimizer.state.values() for value in state.values() if isinstance(value, torch.Tensor))
        return {"weights": weights, "gradients": weights, "optimizer": sum(kept)}

    def trained_tensors(self) -> dict[str, torch.Tensor]:
        """What a checkpoint holds of the model: the trained weights, by name, without their gradients."""
        return {name: parameter.detach() for name, parameter in self.trainable().items()}


def batch_logits(model: nn.Module, batch: Batch, objective: Objective) -> torch.Tensor:
    """The logits of a batch's predictions, in the model's type: (T, vocabulary), or (B, classes)."""
    return class_logits(model, batch) if objective is Objective.CLASSIFICATION else token_logits(model, batch)


def batch_loss(logits: torch.Tensor, batch: Batch, smoothing: float = 0.0) -> torch.Tensor:
    """The sum of the losses of a batch's predictions, float32, with gradients.

    smoothing: the share of each target that all tokens (classes) get alike (Szegedy et al. 2016, arXiv 1512.00567).
    """
    return functional.cross_entropy(logits.float(), batch.targets, reduction="sum", label_smoothing=smoothing)
