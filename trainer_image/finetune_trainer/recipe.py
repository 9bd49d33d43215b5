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

Where a job trains several arms (one a seed, and a comparison: `finetune_api.arms`), the stages are walked for each, in a folder of its own;
then the seed is chosen on validation data, its gates are judged, and its folder is gone through once more, where everything is done, for its model.

Each line leaves its result on disk, verified, before the next needs it, and finds it there after an interruption: so a run that is killed
anywhere ends in the same weights as one that is not. SIGTERM is answered between optimizer steps, between batches of an evaluation,
and between the lines above.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from finetune_api.arms import Arm, arms
from finetune_api.constants import ExitCode, Reason
from finetune_api.v1alpha1.stage import Stage
from finetune_api.wire import Activity, RunResult, TrainerConfig
from finetune_trainer import handover, provenance, publish
from finetune_trainer.arms import RESOLVED, choose, compare, done
from finetune_trainer.arms import folder as arm_folder
from finetune_trainer.backends import quantization_of
from finetune_trainer.checkpoint.journal import Event
from finetune_trainer.checkpoint.lineage import stage_index, stage_name
from finetune_trainer.checkpoint.signals import StopFlag
from finetune_trainer.checkpoint.store import Committer
from finetune_trainer.engine.precision import autocast
from finetune_trainer.engine.stage import StageOutcome, train_stage
from finetune_trainer.errors import TrainerError
from finetune_trainer.evaluation import gates, results
from finetune_trainer.evaluation.suites import suite_seed
from finetune_trainer.export.verify import Probe
from finetune_trainer.guards.registry import guards_of
from finetune_trainer.handing_over import handed_over
from finetune_trainer.measuring import base_heads, following, measure, stage_heads
from finetune_trainer.modeling.stage_model import StageModel
from finetune_trainer.progress import Reporter
from finetune_trainer.work import Work, between_parts, build, committing, in_arm, open_run, resume_point
from finetune_trainer.workload import train_part


def train(config: TrainerConfig, *, reporter: Reporter, stop: StopFlag) -> RunResult:
    """Run the stages of a train segment, and publish after the job's last. Raises TrainerError; Stopped once a signal was answered."""
    work = open_run(config, reporter, stop)
    between_parts(work)
    if config.spec.evaluation.baseline and config.segment.index == 1:
        measure(work, results.BASE, None, base_heads(work))
    model = train_stages(work) if work.sole else train_arms(work)
    facts, artifacts = provenance.complete(work.prepared.provenance, config), []
    if config.segment.last and model is not None:
        between_parts(work)
        work.progress.enter("publish")
        facts = publish.facts(config, work.prepared)
        artifacts = publish.publish(model, config, work.prepared, facts, reporter=work.progress, pause=lambda: between_parts(work))
    return RunResult(outcome="Succeeded", exit_code=ExitCode.SUCCESS, artifacts=artifacts, provenance=facts)


def train_stages(work: Work, *, judged: bool = True) -> StageModel | None:
    """Walk an arm's stages of this segment; return the last one's model, None where none is left to train. judged: gates stop it at once."""
    start = resume_point(work)
    model: StageModel | None = None
    for index, stage in enumerate(work.arm.stages):
        key = stage_name(index, stage.name)
        if stage.name not in work.config.segment.stages or key in work.epoch.handovers:
            continue
        between_parts(work)
        model = build(work, index, stage, start)
        between_parts(work)
        with committing(work, stage) as committer:
            trained = run_stage(work, key, stage, model, committer)
            measure(work, key, stage, stage_heads(work, model))
            if judged and not work.arm.direct:
                judge(work, key, stage)
            if stage.hand_over is not None:
                between_parts(work)
                work.progress.report(Activity.HAND_OVER, stage=stage.name, message=f"stage {stage.name} is handed over ({stage.hand_over})")
                start = handed_over(work, key, model)
                committer.commit_handover(key, trained.step_used, handover.snapshot(start))
    return model


def train_arms(work: Work) -> StageModel | None:
    """Walk every arm, one after the other; return the model to publish, None in a segment that publishes nothing.

    Of several seeds the gates are judged on the one that would be published, so after the choice; a job with one seed is judged as it goes.
    """
    spec, segment = work.config.spec, work.config.segment
    staged = [arm for arm in arms(spec) if not arm.direct]
    for arm in staged:
        walk(work, arm, judged=len(staged) == 1)
    chosen, known = choose(work.run, spec) if segment.last else (staged[0], None)
    if known is not None and known.seeds is not None:
        work.progress.report(Activity.EVALUATE, message=known.seeds.reason)
        there = replace(work, run=arm_folder(work.run, spec, chosen))
        for index, stage in enumerate(chosen.stages):
            judge(there, stage_name(index, stage.name), stage)
    for arm in arms(spec):
        if arm.direct:
            walk(work, arm, judged=False)
    if known is None:
        return None
    compare(work.run, spec, known, draws={suite.name: suite_seed(spec.data_seed, suite.name) for suite in spec.evaluation.suites})
    return train_stages(in_arm(work, chosen))


def walk(work: Work, arm: Arm, *, judged: bool) -> None:
    """Train an arm's stages of this segment, unless all is done."""
    between_parts(work)
    mine = any(stage.name in work.config.segment.stages for stage in arm.stages)
    ended = done(arm_folder(work.run, work.config.spec, arm), arm, measured=bool(work.config.spec.evaluation.suites))
    if mine and not ended:
        train_stages(in_arm(work, arm), judged=judged)


def evaluate(config: TrainerConfig, *, reporter: Reporter, stop: StopFlag) -> RunResult:
    """Measure the base model alone: what a job starts from, before a GPU is spent on it."""
    work = open_run(config, reporter, stop)
    measure(work, results.BASE, None, base_heads(work))
    return RunResult(outcome="Succeeded", exit_code=ExitCode.SUCCESS)


def run_stage(work: Work, key: str, stage: Stage, model: StageModel, committer: Committer) -> StageOutcome:
    """Train a stage from where it stood, and record what its options became."""
    index = stage_index(key)
    work.progress.enter(train_part(work.arm, index, stage))
    work.epoch.record(Event.STAGE, stage=key)
    trained = train_stage(
        model=model.module,
        tokenizer=work.tokenizer,
        stage=stage,
        key=key,
        prepared=work.prepared.stages[stage.name],
        precision=model.precision,
        device=work.device,
        seed=work.seed(index),
        folder=work.epoch.stage_folder(key),
        committer=committer,
        resume=work.resume(key),
        reporter=work.progress,
        stop=work.stop,
        guards=guards_of(model, tokenizer=work.tokenizer, seed=work.seed(index)),
        following=following(work, stage, model),
    )
    summary = model.summary()
    if quantization_of(stage) is not None:
        summary |= on_the_base_in_fp32(work, model)
    record = {"training": trained.resolved, "model": summary, "metrics": trained.metrics, "steps": trained.steps}
    record |= {"stepUsed": trained.step_used, "stoppedEarly": trained.stopped_early, "best": trained.best}
    work.epoch.files.replace_file(work.epoch.stage_folder(key) / RESOLVED, (json.dumps(record, indent=1) + "\n").encode())
    return trained


def on_the_base_in_fp32(work: Work, model: StageModel) -> dict[str, Any]:
    """For the record of a stage on a quantised base: how far the base in fp32 is from it. Weights are still of the types that it trained in."""
    probe = Probe.of(work.prepared.stages[model.stage.name].train, pad=work.tokenizer.pad_token_id)
    _, cost = publish.compared(model, work.tokenizer, probe, computing=autocast(model.precision, work.device))
    return {"onTheBaseInFp32": cost.document()} if cost else {}


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
