"""Which model measures a suite at a point of the run: the stage's own, or the same weights under a head that the suite needs.

A language-model suite after a classification stage is measured with the head that the last language-model stage (or the base) left; a
classification suite before any classification stage is not applicable, and the result says why.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from finetune_api.v1alpha1.evaluation import Suite
from finetune_api.v1alpha1.fine_tune_job import FineTuneJobSpec
from finetune_api.v1alpha1.stage import HandOver, Stage
from finetune_api.v1alpha1.training import CLASSIFIER
from finetune_trainer.checkpoint.journal import Event
from finetune_trainer.data.classifiers import answer_index
from finetune_trainer.data.models import length_limits
from finetune_trainer.engine.precision import Precision, autocast
from finetune_trainer.evaluation import results
from finetune_trainer.evaluation.instruction_following import InstructionFollowing, Judge
from finetune_trainer.evaluation.point import Head as MeasuredBy
from finetune_trainer.evaluation.point import Setting, measure_point
from finetune_trainer.handover import hand_over
from finetune_trainer.modeling.base import load_plain
from finetune_trainer.modeling.classifier import load_classifier
from finetune_trainer.modeling.plain import inner_model
from finetune_trainer.modeling.quantised import known
from finetune_trainer.modeling.stage_model import StageModel, added_ids
from finetune_trainer.modeling.start import HEADS, Head, Start
from finetune_trainer.tokenizer import own_tokenizer
from finetune_trainer.work import Work
from finetune_trainer.workload import measure_part

LANGUAGE_HEADS = {Head.CAUSAL: "causal language-modelling", Head.MASKED: "masked language-modelling"}


@dataclass
class Heads:
    """The models of one point, made when a suite first asks for them."""

    start: Callable[[], Start]
    """The weights of this point, with everything folded in."""
    spec: FineTuneJobSpec
    tokenizer: Any
    precision: Precision
    device: torch.device
    own: StageModel | None = None
    """The stage's model, measured as it stands; None for the base."""
    made: dict[Head, MeasuredBy | str] = field(default_factory=dict)

    def for_suite(self, suite: Suite) -> MeasuredBy | str:
        """The model for a suite, or why there is none."""
        head = HEADS[suite.objective]
        if self.own is not None and head is self.own.head:
            kept = known(inner_model(self.own.module))
            note = f"measured with the base in {kept.kind}, as it was trained" if kept else None
            return MeasuredBy(self.own.module, labels=self.own.labels, note=note)
        if head not in self.made:
            self.made[head] = self._make(head)
        return self.made[head]

    def _make(self, head: Head) -> MeasuredBy | str:
        at = f"after stage {self.own.stage.name}" if self.own else "before the first stage"
        if self.own is not None and not self.own.stage.method.row.folds:
            return (
                f"{at} what {self.own.stage.method.type} learned goes with the stage's own head only: it cannot be folded into the weights"
            )
        start = self.start()
        if head is Head.CLASSIFICATION and head not in start.heads:
            return f"{at} the model has no classification head"
        plain = load_plain(
            start,
            head,
            labels=start.labels,
            tokenizer=self.tokenizer,
            added=added_ids(self.tokenizer, self.spec),
            dtype=self.precision.frozen,
            seed=self.spec.data_seed,
        )
        if head is not Head.CLASSIFICATION and plain.new & set(plain.head_names):
            return f"{at} the model has no {LANGUAGE_HEADS[head]} head"
        note = None
        if self.own is not None:
            note = "measured with the head that an earlier stage left" if head in start.heads else "measured with the base model's own head"
        return MeasuredBy(plain.model.to(self.device), labels=start.labels if head is Head.CLASSIFICATION else None, note=note)


def following(work: Work, stage: Stage, model: StageModel) -> InstructionFollowing | None:
    """What measures the Instruction Following Score of a stage that may stop by it; the classifier stays on the device while it trains."""
    rule, rows = stage.training.early_stopping, work.prepared.stages[stage.name].validation
    if rule is None or rule.classifier is None or rows is None:
        return None
    folder, where = work.prepared.classifiers[stage.name], f"stage {stage.name}, {CLASSIFIER}"
    judge = Judge(
        load_classifier(folder, where=where).to(work.device),
        own_tokenizer(folder, where=where),
        answer_index(folder, rule.classifier, where=where),
        length_limits(folder).advised,
        work.device,
    )
    return InstructionFollowing(
        judge, work.tokenizer, rows, rule, work.prepared.end_tokens, model.precision, work.device, stage.training.eval_rows
    )


def folded_model(model: StageModel, tokenizer: Any) -> Any:
    """A stage's model as a plain one in fp32 on the CPU, its adapter folded in; a quantised base as it is in its files."""
    loaded = load_plain(folded_start(model), model.head, labels=model.labels, tokenizer=tokenizer, added=model.added)
    return loaded.model


def folded_start(model: StageModel) -> Start:
    """The weights of a stage's model as a plain model's: an adapter is folded in."""
    return hand_over(model, HandOver.MERGE if model.stage.method.row.merges else HandOver.CONTINUE)


def base_heads(work: Work) -> Heads:
    """The base model's heads, in the number types of the last stage."""
    start = Start.base(work.prepared.model_folder)
    return Heads(lambda: start, work.config.spec, work.tokenizer, work.precision(work.config.spec.stages[-1]), work.device)


def stage_heads(work: Work, model: StageModel) -> Heads:
    """The heads after a stage: its own, and others over the same weights."""
    return Heads(lambda: folded_start(model), work.config.spec, work.tokenizer, model.precision, work.device, own=model)


def measure(work: Work, point: str, stage: Stage | None, heads: Heads) -> None:
    """Measure every suite at a point, unless that is done already."""
    evaluation, last = work.config.spec.evaluation, work.config.spec.stages[-1]
    if not evaluation.suites or results.point_path(work.run.evaluation, point).exists():
        return
    setting = Setting(
        folder=work.run.evaluation,
        suites=evaluation.suites,
        prepared=lambda name: work.prepared.suites[name],
        tokenizer=work.tokenizer,
        device=work.device,
        batch_size=last.training.eval_rows,
        seed=work.config.spec.data_seed,
        samples=evaluation.samples,
        end_tokens=work.prepared.end_tokens,
        extended_tokenizer=bool(work.config.spec.tokenizer.add_tokens),
    )

    def head_for(suite: Suite) -> MeasuredBy | str:
        work.progress.enter(measure_part(work.arm, point, suite.name), stage=stage.name if stage else None)
        return heads.for_suite(suite)

    # One number type at every point, so that a difference is the model's: the last stage's.
    with autocast(work.precision(last), work.device):
        measure_point(setting, point, stage.name if stage else None, head_for, reporter=work.progress, should_stop=work.stop)
    work.epoch.record(Event.EVALUATED, point=point)
