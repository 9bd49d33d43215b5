"""Everything around a stage's loop: what is logged, committed, evaluated and reported at a step's end, in this order.

Order matters. Lines of a step are written before it is committed; a step is committed before it is evaluated (a long evaluation must not
cost steps); a signal is answered only here, between two steps, because a save inside an accumulation would not be exact.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from finetune_api.constants import Reason
from finetune_api.v1alpha1.stage import Stage
from finetune_api.wire import Activity
from finetune_trainer.checkpoint import state
from finetune_trainer.checkpoint.lineage import CheckpointRef
from finetune_trainer.checkpoint.manifest import Evaluation
from finetune_trainer.checkpoint.random_state import preserved_random
from finetune_trainer.checkpoint.signals import StopFlag
from finetune_trainer.checkpoint.snapshot import has, read_document, read_tensors
from finetune_trainer.checkpoint.steplog import StepLog, lines
from finetune_trainer.checkpoint.store import Committer
from finetune_trainer.diagnosis import DATA_BOUND, Diagnosis
from finetune_trainer.engine.hooks import Ended, LoopState, StepFacts, loop_metrics
from finetune_trainer.engine.noticing import StageNotices
from finetune_trainer.engine.stopping import observe
from finetune_trainer.engine.trainer import StageTrainer
from finetune_trainer.engine.validation import Aborted
from finetune_trainer.errors import Stopped, TrainerError
from finetune_trainer.progress import Reporter

REPORT_SECONDS = 0.5
"""Between two progress reports."""

Validate = Callable[[StageTrainer, Callable[[], bool]], dict[str, float]]
"""Measures on the validation rows; the second argument says whether to stop. Raises Aborted."""


@dataclass
class Pace:
    """Tokens a second, over the time that was spent on steps alone."""

    clock: Callable[[], float]
    tokens: int = 0
    seconds: float = 0.0
    since: float = 0.0

    def start(self) -> None:
        """Steps begin, or go on."""
        self.since = self.clock()

    def add(self, tokens: int) -> None:
        """A step ended."""
        now = self.clock()
        self.tokens += tokens
        self.seconds += now - self.since
        self.since = now

    def take(self) -> float | None:
        """Tokens a second since the last call."""
        rate = self.tokens / self.seconds if self.seconds > 0 else None
        self.tokens, self.seconds = 0, 0.0
        return rate


class StageKeeper:
    """The StageHooks of a real run. With several processes only rank 0 gets one that writes."""

    def __init__(
        self,
        *,
        stage: Stage,
        key: str,
        committer: Committer,
        samples: StepLog,
        curve: StepLog,
        validate: Validate | None,
        resume: CheckpointRef | None,
        reporter: Reporter,
        stop: StopFlag,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`key`: the stage's name in the run folder (`0-domain`). `validate`: None where the stage has no validation rows."""
        self._stage = stage
        self._key = key
        self._committer = committer
        self._samples = samples
        self._curve = curve
        self._validate = validate
        self._resume = resume
        self._reporter = reporter
        self._stop = stop
        self._clock = clock
        self._pace = Pace(clock)
        self._shown = Pace(clock)
        self._saved_at = clock()
        self._reported_at = -REPORT_SECONDS

    def begin(self, trainer: StageTrainer) -> None:
        diagnosis = Diagnosis(self._stage, total_steps=trainer.total_steps, steps_per_epoch=trainer.order.steps_per_epoch)
        self._notices = StageNotices(
            self._stage,
            diagnosis,
            total_steps=trainer.total_steps,
            reporter=self._reporter,
            clock=self._clock,
            record=lambda step, text: self._curve.append(step, **{DATA_BOUND: text}),
        )
        self._say(trainer)
        if self._resume:
            self._restore(trainer, self._resume)
            self._notices.restore(self._curve.path)
            if self._resume.evaluation is Evaluation.PENDING:
                self._evaluate(trainer)
        self._saved_at = self._clock()
        self._start_clocks()

    def consumed(self, step: int, epoch: int, ids: list[list[str]]) -> None:
        self._samples.append(step, epoch=epoch, rows=ids)

    def before_update(self) -> None:
        self._committer.settle()

    def step_ended(self, trainer: StageTrainer, facts: StepFacts) -> Ended:
        loop, last = trainer.loop, facts.step >= trainer.total_steps
        if math.isfinite(facts.loss):  # else a guard has left the step out
            loop.window_loss += facts.loss
            loop.window_steps += 1
        loop.terms = facts.terms
        self._say(trainer)
        self._pace.add(facts.tokens)
        self._shown.add(facts.tokens)
        self._notices.stepped(facts.step, facts.data_seconds)
        if last:
            self._notices.ended()
        if last or facts.step % self._stage.training.logging_steps == 0:
            self._log(loop, facts)
        if last or self._clock() - self._reported_at >= REPORT_SECONDS:
            self._report(trainer, facts)
        if self._evaluation_due(facts.step, last):
            self._commit(trainer, Evaluation.PENDING)
            self._answer_signal(facts.step)
            self._evaluate(trainer)
            self._start_clocks()
            return Ended.EVALUATED
        if last or self._stop.requested or self._save_due(facts.step):
            self._commit(trainer, Evaluation.NONE)
            self._answer_signal(facts.step)
            self._start_clocks()
        return Ended.STEPPED

    def _say(self, trainer: StageTrainer) -> None:
        """What guards have to say, each sentence once."""
        for note in trainer.guards.notes():
            self._reporter.report(
                Activity.TRAIN,
                stage=self._stage.name,
                done=trainer.loop.step,
                total=trainer.total_steps,
                message=f"stage {self._stage.name}, {note}",
            )

    def _start_clocks(self) -> None:
        self._pace.start()
        self._shown.start()
        self._notices.start()

    def _evaluation_due(self, step: int, last: bool) -> bool:
        return self._validate is not None and (last or bool(self._stage.eval_steps and step % self._stage.eval_steps == 0))

    def _save_due(self, step: int) -> bool:
        rule = self._stage.checkpoint
        late = rule.every_minutes is not None and self._clock() - self._saved_at >= 60 * rule.every_minutes
        return late or bool(rule.every_steps and step % rule.every_steps == 0)

    def _log(self, loop: LoopState, facts: StepFacts) -> None:
        loss = loop.window_loss / loop.window_steps if loop.window_steps else None
        self._curve.append(
            facts.step,
            epoch=facts.epoch,
            loss=loss,
            learningRate=facts.learning_rate,
            gradNorm=_number(facts.gradient_norm),
            tokensPerSecond=self._pace.take(),
            **({"guards": facts.terms} if facts.terms else {}),
        )
        loop.window_loss, loop.window_steps = 0.0, 0
        if loss is not None:
            loop.loss = loss
            self._notices.logged(facts.step, loss)

    def _report(self, trainer: StageTrainer, facts: StepFacts) -> None:
        self._reported_at = self._clock()
        self._reporter.report(
            Activity.TRAIN,
            stage=self._stage.name,
            done=facts.step,
            total=trainer.total_steps,
            epoch=facts.epoch,
            loss=_number(facts.loss),
            learning_rate=facts.learning_rate,
            grad_norm=_number(facts.gradient_norm),
            tokens_per_second=self._shown.take(),
            metrics=loop_metrics(trainer.loop) if facts.terms else {},
            notices=self._notices.standing(),
        )

    def _commit(self, trainer: StageTrainer, evaluation: Evaluation) -> None:
        self._samples.sync()
        self._curve.sync()
        snapshot = state.capture(
            trainer,
            weights=trainer.trained_tensors(),
            course=trainer.course.tensors(),
            guards=trainer.guards.tensors(),
            extra=_remembered(trainer),
        )
        self._committer.commit(self._key, trainer.loop.step, snapshot, evaluation=evaluation)
        self._saved_at = self._clock()

    def _evaluate(self, trainer: StageTrainer) -> None:
        """Measure a committed step, and commit what it showed."""
        assert self._validate is not None, "an evaluation is pending only where there are validation rows"
        step, loop = trainer.loop.step, trainer.loop
        try:
            with preserved_random():  # a measurement that is repeated after a stop must leave the training where one that ran once does
                metrics = self._validate(trainer, self._stop)
        except Aborted:
            self._answer_signal(step)
            raise
        if metrics["eval_loss"] != metrics["eval_loss"]:
            raise TrainerError(Reason.LOSS_DIVERGED, f"the validation loss after step {step} is NaN", stage=self._stage.name, step=step)
        loop.metrics = metrics
        self._reporter.report(Activity.TRAIN, stage=self._stage.name, done=step, total=trainer.total_steps, metrics=loop_metrics(loop))
        rule = self._stage.training.early_stopping
        if rule:
            if rule.metric not in metrics:
                known = ", ".join(metrics)
                raise TrainerError(
                    Reason.INVALID_SPEC,
                    f"{rule.metric} is not measured for this objective: write one of {known}",
                    where=f"stage {self._stage.name}, training.earlyStopping.metric",
                )
            loop.verdict = observe(loop.verdict, rule, metrics[rule.metric], step=step)
            trainer.control.should_training_stop = loop.verdict.exhausted
            self._committer.protect(self._key, loop.verdict.best_step)
        if not any(number == step and b'"evalLoss"' in line for number, line in lines(self._curve.path)):
            self._curve.append(step, epoch=trainer.state.epoch, **{_camel(name): value for name, value in metrics.items()})
            self._notices.measured(step, metrics["eval_loss"])
        self._curve.sync()
        self._committer.commit_evaluated(self._key, step, state.capture_evaluated(trainer, extra=_remembered(trainer)))
        self._answer_signal(step)

    def _answer_signal(self, step: int) -> None:
        if self._stop.requested:
            self._committer.wait()
            raise Stopped(f"after step {step} of stage {self._stage.name}, which is saved", stage=self._stage.name, step=step)

    def _restore(self, trainer: StageTrainer, ref: CheckpointRef) -> None:
        """Put everything back; what was drawn or made until here is overwritten."""
        state.restore_weights(ref.path, trainer.trained_tensors())
        state.restore_optimizer_and_schedule(trainer, ref.path)
        state.restore_scaler(trainer, ref.path)
        documents: dict[str, Any] = read_document(ref.path, state.PROGRESS)["extra"]
        trainer.loop = LoopState.load(documents)
        trainer.course.load(state.read_course(ref.path), documents.get("course", {}))
        trainer.guards.load(documents.get("guards", {}), read_tensors(ref.path, state.GUARDS) if has(ref.path, state.GUARDS) else {})
        trainer.state.global_step = trainer.loop.step
        trainer.state.epoch = trainer.loop.consumed / trainer.order.steps_per_epoch
        trainer.control.should_training_stop = trainer.loop.verdict.exhausted
        self._committer.protect(self._key, trainer.loop.verdict.best_step)
        state.restore_generators(ref.path)


def _number(value: float) -> float | None:
    """None for what JSON has no word for."""
    return value if math.isfinite(value) else None


def _remembered(trainer: StageTrainer) -> dict[str, Any]:
    """What the loop, the method's course and the guards remember."""
    guards = trainer.guards.documents()
    return {**trainer.documents(), **({"guards": guards} if guards else {})}


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)
