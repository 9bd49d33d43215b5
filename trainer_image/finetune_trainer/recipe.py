"""The whole run of a segment, top to bottom.

    open the run          the data that prepare left, a fenced epoch, the newest verified checkpoint
    measure the base      every suite, before anything is trained
    for each stage:
        build             the plain model, what earlier stages changed in it, the method on top
        train             from where it stood; committed as it goes
        measure           every suite again, with paired differences from the base
        judge             a gate that is missed ends the run: nothing is published, the checkpoint stays
        hand over         what the next stage starts from, committed
    publish               after the last stage: the model, its card, provenance, the report

Each line leaves its result on disk, verified, before the next needs it, and finds it there after an interruption: so a run that is killed
anywhere ends in the same weights as one that is not. SIGTERM is answered between optimizer steps, between batches of an evaluation,
and between the lines above.
"""

from __future__ import annotations

import json

from finetune_api.constants import ExitCode, Reason
from finetune_api.v1alpha1.evaluation import Suite
from finetune_api.v1alpha1.stage import Stage
from finetune_api.wire import Activity, RunResult, TrainerConfig
from finetune_trainer import handover, outcome, provenance, publish
from finetune_trainer.backends import quantization_of
from finetune_trainer.checkpoint.journal import Event
from finetune_trainer.checkpoint.lineage import stage_index, stage_name
from finetune_trainer.checkpoint.signals import StopFlag
from finetune_trainer.checkpoint.store import Committer
from finetune_trainer.data.draws import stage_seed
from finetune_trainer.engine.stage import StageOutcome, train_stage
from finetune_trainer.errors import TrainerError
from finetune_trainer.evaluation import gates, results
from finetune_trainer.evaluation.point import Head as MeasuredBy
from finetune_trainer.evaluation.point import Setting, measure_point
from finetune_trainer.export.verify import Probe
from finetune_trainer.guards.registry import guards_of
from finetune_trainer.handing_over import handed_over
from finetune_trainer.measuring import Heads, folded_start
from finetune_trainer.modeling.stage_model import StageModel
from finetune_trainer.modeling.start import Start
from finetune_trainer.progress import Reporter
from finetune_trainer.work import Work, autocast, between_parts, build, committing, open_run, resume_point
from finetune_trainer.workload import measure_part, train_part


def train(config: TrainerConfig, *, reporter: Reporter, stop: StopFlag) -> RunResult:
    """Run the stages of a train segment, and publish after the job's last. Raises TrainerError; Stopped once a signal was answered."""
    work = open_run(config, reporter, stop)
    between_parts(work)
    start = resume_point(work)
    if config.spec.evaluation.baseline and config.segment.index == 1:
        measure(work, results.BASE, None, base_heads(work))
    model: StageModel | None = None
    for index, stage in enumerate(config.spec.stages):
        key = stage_name(index, stage.name)
        if stage.name not in config.segment.stages or key in work.epoch.handovers:
            continue
        between_parts(work)
        model = build(work, index, stage, start)
        between_parts(work)
        with committing(work, stage) as committer:
            trained = run_stage(work, key, stage, model, committer)
            measure(work, key, stage, stage_heads(work, model))
            judge(work, key, stage)
            if stage.hand_over is not None:
                between_parts(work)
                work.progress.report(Activity.HAND_OVER, stage=stage.name, message=f"stage {stage.name} is handed over ({stage.hand_over})")
                start = handed_over(work, key, model)
                committer.commit_handover(key, trained.step_used, handover.snapshot(start))
    artifacts = []
    if config.segment.last and model is not None:
        between_parts(work)
        work.progress.enter("publish")
        artifacts = publish.publish(model, config, work.prepared, reporter=work.progress, pause=lambda: between_parts(work))
    return RunResult(
        outcome="Succeeded",
        exit_code=ExitCode.SUCCESS,
        artifacts=artifacts,
        provenance=provenance.complete(work.prepared.provenance, config),
    )


def evaluate(config: TrainerConfig, *, reporter: Reporter, stop: StopFlag) -> RunResult:
    """Measure the base model alone: what a job starts from, before a GPU is spent on it."""
    work = open_run(config, reporter, stop)
    measure(work, results.BASE, None, base_heads(work))
    return RunResult(outcome="Succeeded", exit_code=ExitCode.SUCCESS)


def run_stage(work: Work, key: str, stage: Stage, model: StageModel, committer: Committer) -> StageOutcome:
    """Train a stage from where it stood, and record what its options became."""
    index = stage_index(key)
    work.progress.enter(train_part(index, stage))
    work.epoch.record(Event.STAGE, stage=key)
    trained = train_stage(
        model=model.module,
        tokenizer=work.tokenizer,
        stage=stage,
        key=key,
        prepared=work.prepared.stages[stage.name],
        precision=model.precision,
        device=work.device,
        seed=stage_seed(work.config.spec.seed, index),
        folder=work.epoch.stage_folder(key),
        committer=committer,
        resume=work.resume(key),
        reporter=work.progress,
        stop=work.stop,
        guards=guards_of(model, tokenizer=work.tokenizer, seed=stage_seed(work.config.spec.seed, index)),
    )
    summary = model.summary()
    if quantization_of(stage) is not None:
        probe = Probe.of(work.prepared.stages[stage.name].train, pad=work.tokenizer.pad_token_id)
        _, cost = publish.compared(model, work.tokenizer, probe)
        summary |= {"onTheBaseInFp32": cost.document()} if cost else {}
    record = {"training": trained.resolved, "model": summary, "metrics": trained.metrics, "steps": trained.steps}
    record |= {"stepUsed": trained.step_used, "stoppedEarly": trained.stopped_early}
    work.epoch.files.replace_file(work.epoch.stage_folder(key) / outcome.RESOLVED, (json.dumps(record, indent=1) + "\n").encode())
    return trained


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
        seed=work.config.spec.seed,
        samples=evaluation.samples,
        end_tokens=work.prepared.end_tokens,
        extended_tokenizer=bool(work.config.spec.tokenizer.add_tokens),
    )

    def head_for(suite: Suite) -> MeasuredBy | str:
        work.progress.enter(measure_part(point, suite.name), stage=stage.name if stage else None)
        return heads.for_suite(suite)

    # One number type at every point, so that a difference is the model's: the last stage's.
    with autocast(work.precision(last), work.device):
        measure_point(setting, point, stage.name if stage else None, head_for, reporter=work.progress, should_stop=work.stop)
    work.epoch.record(Event.EVALUATED, point=point)


def judge(work: Work, point: str, stage: Stage) -> None:
    """Judge the stage's gates and write the verdicts. Raises TrainerError(GateFailed)."""
    spec = work.config.spec
    names = [other.name for other in spec.stages]
    points = results.read_points(work.run.evaluation, names)
    verdicts = gates.judge(spec.evaluation.gates, points, stage.name, stages=names)
    if not verdicts:
        return
    judged = next(found for found in points if found.point == point).model_copy(update={"gates": verdicts})
    results.write(results.point_path(work.run.evaluation, point), judged)
    missed = [verdict.message for verdict in verdicts if not verdict.passed]
    if missed:
        raise TrainerError(Reason.GATE_FAILED, "; ".join(missed), where="spec.evaluation.gates", stage=stage.name)
