"""`finetune plan`: what would run, as a document (for -o json and yaml) and as a tree. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from finetune_api.arms import arms
from finetune_api.plan import Plan
from finetune_api.v1alpha1.evaluation import Gate
from finetune_api.v1alpha1.fine_tune_job import FineTuneJobSpec
from finetune_api.v1alpha1.regularization import guard_text
from finetune_api.v1alpha1.stage import Stage
from finetune_api.wire import SegmentKind, TrainerConfig

if TYPE_CHECKING:
    from rich.tree import Tree


def outline(planned: Plan) -> dict[str, Any]:
    """The plan with each thing in it once: job, segments with their stages in full, what is measured and when, gates, output."""
    spec = planned.segments[0].spec
    every = arms(spec)
    stages = {stage.name: stage.model_dump(mode="json", by_alias=True, exclude_none=True) for stage in spec.stages}
    dumped = spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    points = (["base"] if spec.evaluation.baseline else []) + [f"after {name}" for name in stages]
    return {
        "job": {"name": planned.job.name, "namespace": planned.job.namespace},
        "configHash": planned.config_hash,
        "runFolder": planned.segments[0].run_folder,
        "threads": planned.segments[0].threads,
        **({"seeds": spec.seeds, "arms": [arm.words for arm in every]} if len(every) > 1 else {"seed": spec.data_seed}),
        "model": dumped["model"],
        "segments": [
            {
                "index": config.segment.index,
                "kind": config.segment.kind.value,
                "gpus": config.segment.gpus,
                "stages": config.segment.stages
                if config.segment.kind is SegmentKind.PREPARE
                else [stages[n] for n in config.segment.stages],
            }
            for config in planned.segments
        ],
        "evaluation": {"points": points if spec.evaluation.suites else [], **dumped["evaluation"]},
        "output": dumped["output"],
    }


def tree(planned: Plan) -> Tree:
    """The same for people."""
    from rich.tree import Tree

    spec = planned.segments[0].spec
    root = Tree(f"{planned.job.name}: {spec.model.uri}{f' at {spec.model.revision}' if spec.model.revision else ''}, {_seeds(spec)}")
    root.add(f"runs in {planned.segments[0].run_folder}, {planned.segments[0].threads} CPU threads, config {planned.config_hash[:12]}")
    for config in planned.segments:
        _add_segment(root, config, spec)
    every = arms(spec)
    if len(every) > 1:
        root.add(f"each train segment goes through its stages {len(every)} times: {', then '.join(arm.words for arm in every)}")
    suites = spec.evaluation.suites
    if suites:
        branch = root.add("evaluation")
        for suite in suites:
            branch.add(f"{suite.name}: {', '.join(suite.metrics)} ({suite.objective}) on {suite.data.uri}")
    output = root.add(f"output to {spec.output.uri or 'artifacts in the run folder'}")
    output.add(f"as {', '.join(spec.output.format) if spec.output.format else 'adapter or merged, by the last stage'}; model card, report")
    return root


def _add_segment(root: Tree, config: TrainerConfig, spec: FineTuneJobSpec) -> None:
    segment = config.segment
    if segment.kind is SegmentKind.PREPARE:
        root.add(f"segment {segment.index}, prepare: fetch, audit and tokenise the data of {', '.join(segment.stages)}; no GPU")
        return
    gpus = "" if segment.gpus is None else f" ({segment.gpus} GPUs)"
    branch = root.add(f"segment {segment.index}, train{gpus}: {', '.join(segment.stages)}")
    stages = [stage for stage in spec.stages if stage.name in segment.stages]
    if spec.stages[0] in stages and spec.evaluation.baseline and spec.evaluation.suites:
        branch.add(f"measure the base model on {_suites(spec)}")
    for stage in stages:
        leaf = branch.add(f"stage {stage.name}: {stage.objective}, {method(stage)}")
        for line in stage_lines(stage):
            leaf.add(line)
        if spec.evaluation.suites:
            leaf.add(f"measure on {_suites(spec)}")
        for gate in spec.evaluation.gates:
            if (gate.stage or spec.stages[-1].name) == stage.name:
                leaf.add(f"gate: {gate_text(gate)}")
        if stage.hand_over is not None:
            leaf.add(f"hand over: {stage.hand_over} (weights: {stage.hand_over_weights}{_scale(stage)})")


def _scale(stage: Stage) -> str:
    """How much of its change. Example: `, 0.7 of the change`."""
    chosen = ", the share of the change chosen on the next stage's validation rows" if stage.hand_over_scale_by else ""
    return f", {stage.hand_over_scale:g} of the change" if stage.hand_over_scale is not None else chosen


def _seeds(spec: FineTuneJobSpec) -> str:
    seeds = spec.every_seed
    return f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {', '.join(map(str, seeds))}; published is the best on validation data"


def stage_lines(stage: Stage) -> list[str]:
    """Data, length and batch of a stage."""
    training = stage.training
    length = plural(training.max_steps, "step") if training.max_steps else plural(training.num_train_epochs or 0, "epoch")
    batch = plural(training.batch_rows, "row")
    batch += f" × {training.accumulation}" if training.accumulation > 1 else ""
    options = [name for name, on in (("packing", training.packing), ("gradient checkpointing", training.gradient_checkpointing)) if on]
    sources = [f"{source.uri}{f' (weight {source.weight:g})' if source.weight else ''}" for source in stage.data.train]
    validation = stage.data.validation
    lines = [f"data: {', '.join(sources)}"]
    if validation is not None:
        lines.append(f"validation: {validation.uri or f'{validation.fraction:.3g} of the training rows'}")
    lines.append(f"{length} of {batch}, {training.optimizer} at {training.learning_rate:g} ({training.lr_scheduler_type})")
    saves = [f"{stage.checkpoint.every_steps} steps"] if stage.checkpoint.every_steps else []
    saves += [f"{stage.checkpoint.every_minutes:g} minutes"] if stage.checkpoint.every_minutes else []
    if stage.regularization:
        lines.append(f"guards: {', '.join(guard_text(guard) for guard in stage.regularization)}")
    lines.append(f"checkpoint every {' or '.join(saves)}, {stage.checkpoint.keep} kept")
    return [*lines, ", ".join(options)] if options else lines


def plural(count: float, word: str) -> str:
    return f"{count:,g} {word}" if count == 1 else f"{count:,g} {word}s"


def method(stage: Stage) -> str:
    """Example: `lora (r 16, alpha 32, all-linear)`."""
    name, *rest = stage.method.words
    return f"{name} ({', '.join(rest)})" if rest else name


def gate_text(gate: Gate) -> str:
    """Example: `knowledge perplexity at most 3 % worse than base`."""
    better = gate.min_improvement is not None
    change = gate.min_improvement or gate.max_regression
    amount = ""
    if change is not None:
        amount = f"{100 * change.relative:.4g} %" if change.relative is not None else f"{change.absolute:g}"
    return (
        f"{gate.suite} {gate.metric} at {'least' if better else 'most'} {amount} {'better' if better else 'worse'} than {gate.relative_to}"
    )


def _suites(spec: FineTuneJobSpec) -> str:
    return ", ".join(suite.name for suite in spec.evaluation.suites)
