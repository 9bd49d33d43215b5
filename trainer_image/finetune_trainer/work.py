"""What every part of a run shares: the data that prepare left, the epoch, the device; and how the parts are opened and closed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from finetune_api.arms import Arm, arms
from finetune_api.v1alpha1.stage import Stage
from finetune_api.wire import Activity, TrainerConfig
from finetune_trainer import handover, outcome
from finetune_trainer.arms import folder as arm_folder
from finetune_trainer.arms import share_base
from finetune_trainer.checkpoint.asynchronous import AsynchronousStore
from finetune_trainer.checkpoint.epochs import Epoch, open_epoch
from finetune_trainer.checkpoint.lineage import CheckpointRef, stage_name
from finetune_trainer.checkpoint.manifest import Kind
from finetune_trainer.checkpoint.signals import StopFlag
from finetune_trainer.checkpoint.state import read_course
from finetune_trainer.checkpoint.store import CheckpointStore, Committer
from finetune_trainer.data.draws import stage_seed
from finetune_trainer.data.examples import StageExamples
from finetune_trainer.data.prepared import Prepared, load_prepared
from finetune_trainer.engine.precision import Precision, bf16_capable, resolve_precision, training_device
from finetune_trainer.errors import Stopped
from finetune_trainer.export.place import check_place
from finetune_trainer.modeling.base import load_config
from finetune_trainer.modeling.sketch import machine_problems
from finetune_trainer.modeling.stage_model import StageModel, build_stage_model
from finetune_trainer.modeling.start import Start
from finetune_trainer.progress import JobProgress, Reporter
from finetune_trainer.run_folder import RunFolder
from finetune_trainer.tokenizer import load_tokenizer
from finetune_trainer.workload import parts


@dataclass(frozen=True)
class Work:
    """What every part of a run needs."""

    config: TrainerConfig
    run: RunFolder
    prepared: Prepared
    tokenizer: Any
    epoch: Epoch
    progress: JobProgress
    stop: StopFlag
    device: torch.device
    arm: Arm
    """What is trained here: of a job that trains several, one after the other; `run` and `epoch` are then the arm's own."""
    fence: Epoch
    """The process's epoch at the top of the run folder."""

    @property
    def sole(self) -> bool:
        """Whether the job has one arm."""
        return len(arms(self.config.spec)) == 1

    def seed(self, index: int) -> int:
        """The seed of a stage of this arm: the same with and without the stages before it."""
        return stage_seed(self.arm.seed, self.arm.first + index)

    def refuse_if_superseded(self) -> None:
        """Raise TrainerError(RunFolderBusy) where a later start has begun, in this arm or in another."""
        self.epoch.refuse_if_superseded()
        if self.fence is not self.epoch:
            self.fence.refuse_if_superseded()

    def precision(self, stage: Stage) -> Precision:
        """The number types of a stage on this device."""
        dtype = getattr(load_config(self.prepared.model_folder), "dtype", None) or torch.float32
        where = f"stage {stage.name}, training.mixedPrecision"
        return resolve_precision(
            stage.training.mixed_precision,
            device=self.device,
            checkpoint=dtype,
            bf16_capable=bf16_capable(self.device),
            weights=stage.method.weights,
            where=where,
        )

    def resume(self, key: str) -> CheckpointRef | None:
        """The checkpoint of this stage (`0-domain`) to go on from."""
        start = self.epoch.start
        return start if start and start.kind is Kind.CHECKPOINT and start.stage == key else None


def open_run(config: TrainerConfig, reporter: Reporter, stop: StopFlag) -> Work:
    """Everything that a run needs, opened and checked; what had to be left aside is said."""
    torch.set_num_threads(config.threads)
    run = RunFolder(Path(config.run_folder))
    prepared = load_prepared(config)
    check_place(config)
    for error in machine_problems(config.spec.stages, training_device()):
        if error.stage in config.segment.stages:
            raise error
    epoch = open_epoch(run, segment=config.segment.index)
    progress = JobProgress(reporter, parts(config.spec, prepared))
    if len(arms(config.spec)) == 1:
        _tell_start(progress, epoch)
    return Work(
        config=config,
        run=run,
        prepared=prepared,
        tokenizer=load_tokenizer(prepared.tokenizer_folder, config.spec),
        epoch=epoch,
        progress=progress,
        stop=stop,
        device=training_device(),
        arm=arms(config.spec)[0],
        fence=epoch,
    )


def in_arm(work: Work, arm: Arm) -> Work:
    """The same in the folder of an arm, where it goes on from its own newest checkpoint."""
    run = arm_folder(work.run, work.config.spec, arm)
    share_base(work.run, run)
    epoch = open_epoch(run, segment=work.config.segment.index)
    work.progress.arm = arm.index
    _tell_start(work.progress, epoch, f"{arm.words}: ")
    return replace(work, run=run, epoch=epoch, arm=arm)


def _tell_start(progress: JobProgress, epoch: Epoch, arm: str = "") -> None:
    progress.report(Activity.LOAD, message=arm + outcome.resumed(epoch))
    for rejected in epoch.rejected:
        progress.report(Activity.LOAD, message=f"{arm}a damaged checkpoint is left aside: {rejected}")


def resume_point(work: Work) -> Start:
    """The newest hand-over, or the base model."""
    handovers = work.epoch.handovers
    if not handovers:
        return Start.base(work.prepared.model_folder)
    newest = max(handovers.values(), key=lambda ref: ref.position)
    return handover.read(newest.path, model=work.prepared.model_folder)


def build(work: Work, index: int, stage: Stage, start: Start) -> StageModel:
    """The model that a stage trains."""
    work.progress.report(Activity.LOAD, stage=stage.name)
    prepared, seed = work.prepared.stages[stage.name], work.seed(index)
    resume = work.resume(stage_name(index, stage.name))
    model = build_stage_model(
        start=start,
        stage=stage,
        spec=work.config.spec,
        labels=prepared.labels,
        tokenizer=work.tokenizer,
        precision=work.precision(stage),
        seed=seed,
        examples=StageExamples(prepared.train, stage.data.train, seed, work.device),
        remembered=read_course(resume.path) if resume else {},
    )
    work.progress.report(Activity.LOAD, stage=stage.name, message=f"stage {stage.name} {model.trains()}")
    return model


@contextmanager
def committing(work: Work, stage: Stage) -> Iterator[Committer]:
    """The stage's store; closed (and what it still writes, waited for) whatever happens."""
    store = CheckpointStore(work.epoch, keep=stage.checkpoint.keep, reporter=work.progress, fence=work.refuse_if_superseded)
    committer: Committer = AsynchronousStore(store) if stage.checkpoint.asynchronous else store
    try:
        yield committer
    finally:
        committer.close()


def between_parts(work: Work) -> None:
    """Answer a signal where nothing is half done, and give way to a later start."""
    if work.stop.requested:
        raise Stopped("everything so far is saved")
    work.refuse_if_superseded()
