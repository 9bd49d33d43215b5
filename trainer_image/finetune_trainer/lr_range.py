"""A learning-rate range test (Smith 2015, arXiv 1506.01186): rates rise step by step, and the loss shows which of them teach and which destroy.

The stage trains as it would, from where it starts, with its rows, method and guards; only the rate is another at each step, from low to high by equal
factors. It stands where a guard would: it is asked before each update how much of the rate the step is made with. Nothing of the model is kept.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from finetune_api.arms import arms
from finetune_api.constants import ExitCode, Reason
from finetune_api.v1alpha1.fine_tune_job import FineTuneJobSpec
from finetune_api.v1alpha1.regularization import GuardType
from finetune_api.v1alpha1.stage import Stage
from finetune_api.v1alpha1.training import LrSchedulerType
from finetune_api.wire import Activity, RunResult, TrainerConfig
from finetune_trainer import handover
from finetune_trainer.arms import folder as arm_folder
from finetune_trainer.checkpoint import lineage
from finetune_trainer.checkpoint.files import FileLayer
from finetune_trainer.checkpoint.lineage import stage_name
from finetune_trainer.checkpoint.nowhere import Nowhere
from finetune_trainer.checkpoint.signals import StopFlag
from finetune_trainer.data.prepared import PreparedStage
from finetune_trainer.engine.guards import Guard
from finetune_trainer.engine.stage import train_stage
from finetune_trainer.errors import Stopped, TrainerError
from finetune_trainer.guards.registry import guards_of
from finetune_trainer.modeling.start import Start
from finetune_trainer.progress import JobProgress, Part, Reporter
from finetune_trainer.run_folder import RunFolder
from finetune_trainer.work import Work, build, open_run
from finetune_trainer.workload import train_part

if TYPE_CHECKING:
    from finetune_trainer.engine.trainer import StageTrainer

DOCUMENT: Final = "lr-range.json"
PICTURE: Final = "lr-range.svg"
BELOW: Final = 0.01
ABOVE: Final = 1000.0
"""From and to where, as factors of the method's default rate, where nothing else is asked for."""
STEPS: Final = 100
WIDTH: Final = 2.5
"""Points that the smoothed loss looks to each side, as a standard deviation: both sides alike, or the curve would lag behind the rates."""
DIVERGED: Final = 2.0
"""How many times the least smoothed loss ends the test."""
FIRST: Final = 5
"""Points at each end that say little: they have neighbours on one side alone."""
LEARNED: Final = 0.01
"""The share of its first value that the smoothed loss must have lost, or nothing was learned."""
MARGIN: Final = 10.0
"""How far below the rate with the least loss one stays: beyond it the loss rises soon."""


@dataclass(frozen=True)
class Suggestion:
    """What the curve says."""

    steepest: float | None
    """The rate at which the smoothed loss fell fastest, over the logarithm of the rate. None: it did not fall."""
    safe: float | None
    """A tenth of the rate at which it was least: what is surely before the divergence."""
    diverged: float | None
    """The rate at which it had doubled; None: at none of them."""


@dataclass(frozen=True)
class Asked:
    """What the test was asked for."""

    stage: str | None = None
    """Default: the first."""
    low: float | None = None
    high: float | None = None
    steps: int = STEPS
    run: Path | None = None
    """The run folder of the job itself: a later stage starts from what an earlier one left there."""


def rates_between(low: float, high: float, steps: int) -> list[float]:
    """Rates that rise by equal factors."""
    return [low * (high / low) ** (index / (steps - 1)) for index in range(steps)]


def smoothed(losses: Sequence[float]) -> list[float]:
    """Each loss averaged with its neighbours."""
    places = np.arange(len(losses))
    weights = np.exp(-(((places[:, None] - places[None, :]) / WIDTH) ** 2) / 2)
    return [float(value) for value in (weights @ np.array(losses, np.float64)) / weights.sum(axis=1)]


def suggestion(rates: Sequence[float], losses: Sequence[float]) -> Suggestion:
    """What a curve says. losses: each after the update at the rate of the same place."""
    curve = np.array(smoothed(losses))
    least = int(curve.argmin()) if len(curve) else 0
    risen = [index for index in range(least, len(curve)) if curve[index] > DIVERGED * curve[least]]
    diverged = rates[risen[0]] if risen else None
    if least <= FIRST or curve[least] > (1 - LEARNED) * curve[FIRST]:
        return Suggestion(None, None, diverged)
    slopes = np.gradient(curve, np.log(np.array(rates[: len(curve)])))
    steepest = FIRST + int(slopes[FIRST : least + 1].argmin())
    return Suggestion(rates[steepest], rates[least] / MARGIN, diverged)


class Rising(Guard):
    """Makes step k with the k-th rate, and ends the test after the last one or where the loss is lost."""

    name = "lrRange"

    def __init__(self, rates: Sequence[float], stop: StopFlag) -> None:
        self.rates = list(rates)
        self.losses: list[float] = []
        self._stop = stop
        self._trainer: StageTrainer | None = None

    def begin(self, trainer: StageTrainer) -> None:
        self._trainer = trainer

    def judge(self, step: int, loss: float, ids: Sequence[Sequence[str]]) -> float:
        if self._stop.requested:
            raise Stopped("the range test keeps nothing: start it again")
        if step > 1:  # the loss that the update before it has left
            self.losses.append(loss if math.isfinite(loss) else math.inf)
        if step > len(self.rates) or self._lost(loss):
            assert self._trainer is not None, "begin comes first"
            self._trainer.loop.verdict = dataclasses.replace(self._trainer.loop.verdict, exhausted=True)
            return 0.0
        return self.rates[step - 1] / self.rates[-1]

    def _lost(self, loss: float) -> bool:
        if not math.isfinite(loss):
            return True
        curve = smoothed(self.losses)
        return len(curve) > FIRST and curve[-1] > 2 * DIVERGED * min(curve)  # well beyond, so that the picture shows the rise


def measure(config: TrainerConfig, asked: Asked, *, reporter: Reporter, stop: StopFlag) -> RunResult:
    """Test a stage; leave the curve and its picture in the run folder. Raises TrainerError (InvalidSpec), Stopped."""
    from finetune_trainer.report.range_picture import range_picture  # drawing costs seconds to import

    index, stage = _stage(config, asked.stage)
    rates = _rates(stage, asked)
    work = open_run(config, reporter, stop)
    part = Part(train_part(work.arm, index, stage), Activity.TRAIN, 1.0)
    work = dataclasses.replace(work, progress=JobProgress(reporter, [part]))
    rising = Rising(rates, stop)
    start = _start(work, index, asked.run)
    try:
        _train(work, index, stage, rising, start=start)
    except TrainerError as error:
        if error.reason is not Reason.LOSS_DIVERGED:
            raise
        # A gradient without bounds at a loss that is a number yet: the end that a test looks for.
    made = rates[: len(rising.losses)]
    losses = [loss for loss in rising.losses if math.isfinite(loss)]
    found = suggestion(made[: len(losses)], losses)
    if found.diverged is None and len(made) < len(rates):
        found = dataclasses.replace(found, diverged=made[-1])
    document = {
        "stage": stage.name,
        "declared": stage.training.learning_rate,
        "steepest": found.steepest,
        "safe": found.safe,
        "diverged": found.diverged,
        "rates": made[: len(losses)],
        "losses": losses,
        "smoothed": smoothed(losses),
    }
    files = FileLayer()
    files.replace_file(work.run.root / DOCUMENT, (json.dumps(document, indent=1) + "\n").encode())
    files.replace_file(work.run.root / PICTURE, range_picture(document).encode())
    return RunResult(outcome="Succeeded", exit_code=ExitCode.SUCCESS)


def _train(work: Work, index: int, stage: Stage, rising: Rising, *, start: Start) -> None:
    tested = _tested(stage, rising.rates)
    key = stage_name(index, stage.name)
    model = build(work, index, tested, start)
    work.progress.enter(train_part(work.arm, index, stage))
    seed = work.seed(index)
    prepared: PreparedStage = dataclasses.replace(work.prepared.stages[stage.name], validation=None)
    train_stage(
        model=model.module,
        tokenizer=work.tokenizer,
        stage=tested,
        key=key,
        prepared=prepared,
        precision=model.precision,
        device=work.device,
        seed=seed,
        folder=work.epoch.stage_folder(key),
        committer=Nowhere(),
        resume=None,
        reporter=work.progress,
        stop=work.stop,
        guards=[*guards_of(model, tokenizer=work.tokenizer, seed=seed), rising],
    )


def _tested(stage: Stage, rates: Sequence[float]) -> Stage:
    """The stage with the highest rate throughout, of which each step gets its share; two steps more than there are rates, so that the test ends before
    the stage would, which commits its last step.
    """
    training = stage.training.model_copy(
        update={
            "learning_rate": rates[-1], "lr_scheduler_type": LrSchedulerType.CONSTANT, "warmup_steps": None, "warmup_ratio": None,
            "max_steps": len(rates) + 2, "num_train_epochs": None, "early_stopping": None,
        }
    )  # fmt: skip
    kept = [guard for guard in stage.regularization or [] if guard.type is not GuardType.LOSS_SPIKE]
    never: dict[str, Any] = {"every_steps": None, "every_minutes": None}
    return stage.model_copy(
        update={"training": training, "regularization": kept, "eval_steps": None, "checkpoint": stage.checkpoint.model_copy(update=never)}
    )


def _stage(config: TrainerConfig, name: str | None) -> tuple[int, Stage]:
    names = [stage.name for stage in config.spec.stages]
    if name is not None and name not in names:
        raise TrainerError(
            Reason.INVALID_SPEC, f"the job has no stage {name}, but {', '.join(names)}", where="--lr-stage", hint="Name one of them."
        )
    index = names.index(name) if name is not None else 0
    return index, config.spec.stages[index]


def _rates(stage: Stage, asked: Asked) -> list[float]:
    usual = stage.method.row.learning_rate
    low, high = asked.low or usual * BELOW, asked.high or usual * ABOVE
    if low >= high:
        raise TrainerError(
            Reason.INVALID_SPEC,
            f"rates rise, and {low:g} is not below {high:g}",
            where="--lr-from, --lr-to",
            hint="Give a lower and a higher rate.",
        )
    return rates_between(low, high, asked.steps)


def _start(work: Work, index: int, run: Path | None) -> Start:
    """What the stage starts from: for a later one, what the job's own run has handed over."""
    if index == 0:
        return Start.base(work.prepared.model_folder)
    before = work.config.spec.stages[index - 1].name
    folder = RunFolder(run) if run is not None else work.run
    recorded = _recorded(folder)
    ref = None
    if recorded is not None and _same_before(recorded, work.config.spec, index):
        epochs = arm_folder(folder, recorded, arms(recorded)[0]).epochs
        handed = lineage.newest_valid(lineage.chain(epochs, lineage.head(epochs))).handovers if epochs.is_dir() else {}
        ref = handed.get(stage_name(index - 1, before))
    if ref is None:
        raise TrainerError(
            Reason.INVALID_SPEC,
            f"stage {work.config.spec.stages[index].name} starts from what {before} hands over, and {folder.root} has none of this manifest",
            where="--lr-stage",
            hint="Run the job until that stage is done (Ctrl-C saves), then test; or test the first stage.",
        )
    return handover.read(ref.path, model=work.prepared.model_folder)


def _recorded(folder: RunFolder) -> FineTuneJobSpec | None:
    """The manifest that a run is of; None where nothing readable says."""
    try:
        return FineTuneJobSpec.model_validate(json.loads(folder.identity.read_bytes())["spec"])
    except (OSError, ValueError, KeyError):
        return None


def _same_before(recorded: FineTuneJobSpec, tested: FineTuneJobSpec, index: int) -> bool:
    """Whether a run's first arm had the model, the seed and the earlier stages of the one that is tested, which is the first too."""
    alike = (recorded.model, recorded.tokenizer, recorded.data_seed) == (tested.model, tested.tokenizer, tested.data_seed)
    return alike and recorded.stages[:index] == tested.stages[:index]
