"""The arms of a run on disk: each in its own folder with its own epochs, checkpoints, journal and evaluation, and what they come to together.

RUN/arms/seed-1/, seed-2/, seed-2-direct/: what a run folder of one arm has at its top. The prepared data, the base's measurement, the lock, the
identity and the counting of starts stay at the top, with an epoch of the process itself, in which no stage lies: it is the fence between
two processes that are in different arms. Imports no torch.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from finetune_api.arms import Arm, arms
from finetune_api.constants import Reason
from finetune_api.v1alpha1.fine_tune_job import FineTuneJobSpec
from finetune_api.v1alpha1.stage import HandOverWeights, Stage
from finetune_api.v1alpha1.status import SeedScore, SeedsStatus
from finetune_api.v1alpha1.training import EarlyStoppingMetric
from finetune_trainer.checkpoint.files import FileLayer
from finetune_trainer.checkpoint.journal import Event, Journal, process_of
from finetune_trainer.checkpoint.lineage import STAGES, stage_name
from finetune_trainer.engine.stopping import LOWER_IS_BETTER
from finetune_trainer.errors import TrainerError
from finetune_trainer.evaluation import metrics, results
from finetune_trainer.evaluation.bootstrap import paired_difference
from finetune_trainer.evaluation.records import RowRecords
from finetune_trainer.evaluation.results import BASE, PointResult
from finetune_trainer.evaluation.spread import ArmsResult, Comparison, Length, comparison, spreads
from finetune_trainer.run_folder import RunFolder

RESOLVED = "resolved.json"
"""In a stage's folder of an epoch: every option as it was used."""


def folder(run: RunFolder, spec: FineTuneJobSpec, arm: Arm) -> RunFolder:
    """Where an arm lies: the run folder itself, where it is the only one."""
    return RunFolder(run.arms / arm.name) if len(arms(spec)) > 1 else run


def shown(run: RunFolder, spec: FineTuneJobSpec) -> RunFolder:
    """The folder of the arm that a result and a report tell of: the published one, else the last with all stages that has begun."""
    every = arms(spec)
    if len(every) == 1:
        return run
    known = read(run)
    if known is not None:
        return RunFolder(run.arms / known.published)
    begun = [found for arm in every if not arm.direct and (found := folder(run, spec, arm)).journal.exists()]
    return begun[-1] if begun else folder(run, spec, every[0])


def starts(run: RunFolder, spec: FineTuneJobSpec) -> list[dict[str, Any]]:
    """Where each process went on, in order; in a run of several arms, in which (`arm`, in words): the first that it opened."""
    if len(arms(spec)) == 1:
        return [event for event in Journal(run.journal, FileLayer()).read() if event["event"] == Event.START]
    every = [
        {**event, "arm": arm.words}
        for arm in arms(spec)
        for event in Journal(folder(run, spec, arm).journal, FileLayer()).read()
        if event["event"] == Event.START
    ]
    first: dict[Any, dict[str, Any]] = {}
    for event in sorted(every, key=lambda event: float(event["at"])):
        first.setdefault(process_of(event), event)
    return list(first.values())


def share_base(run: RunFolder, arm: RunFolder) -> None:
    """Put the base's measurement beside the arm's own. Its figures go last: where they are, all of it is."""
    source, target = run.evaluation, arm.evaluation
    base = results.point_path(source, BASE)
    if results.point_path(target, BASE).exists() or not base.exists():
        return
    samples = results.samples_path(source, BASE)
    for path in [*sorted((source / "rows" / BASE).glob("*.npz")), *([samples] if samples.exists() else []), base]:
        place = target / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary = place.with_name(place.name + ".tmp")
        shutil.copyfile(path, temporary)
        temporary.replace(place)


def done(at: RunFolder, arm: Arm, *, measured: bool) -> bool:
    """Whether an arm's last stage is trained and (where there are suites) measured. What is there then is whole: it was written last."""
    key = _last(arm)
    return resolved(at, key) is not None and (not measured or results.point_path(at.evaluation, key).exists())


def resolved(at: RunFolder, key: str) -> dict[str, Any] | None:
    """What a stage's training came to; None before its end."""
    found = sorted(at.epochs.glob(f"*/{STAGES}/{key}/{RESOLVED}"))
    return json.loads(found[-1].read_bytes()) if found else None


def read(run: RunFolder) -> ArmsResult | None:
    """What the arms came to; None before the choice."""
    return results.read(run.arms_result, ArmsResult)


def choose(run: RunFolder, spec: FineTuneJobSpec) -> tuple[Arm, ArmsResult]:
    """The arm to publish, and what the seeds came to; written. Of equal ones the first. Reads what has ended: every seed's last stage."""
    staged = [arm for arm in arms(spec) if not arm.direct]
    at = [folder(run, spec, arm) for arm in staged]
    chosen, seeds = staged[0], None
    if len(staged) > 1:
        last = spec.stages[-1]
        metric = _metric(last)
        values = [_validated(place, arm, last, metric) for place, arm in zip(at, staged, strict=True)]
        sign = 1.0 if metric in LOWER_IS_BETTER else -1.0
        chosen = min(zip(values, staged, strict=True), key=lambda pair: sign * pair[0])[1]
        seeds = _seeds(chosen, staged, values, metric, last)
    points = [_points(place, arm) for place, arm in zip(at, staged, strict=True)]
    result = ArmsResult(published=chosen.name, seeds=seeds, spreads=spreads(points), lengths=_lengths(at, staged))
    results.write(run.arms_result, result)
    return chosen, result


def compare(run: RunFolder, spec: FineTuneJobSpec, known: ArmsResult, *, draws: dict[str, int]) -> ArmsResult:
    """Add what the stages before the compared one did; written. draws: the seed of each suite's bootstrap."""
    every = arms(spec)
    direct = [arm for arm in every if arm.direct]
    if not direct:
        return known
    pairs = [(_compared(run, spec, arm, every), arm) for arm in direct]
    found = [entry for suite in spec.evaluation.suites for entry in _compare_suite(suite.name, pairs, run, spec, draws[suite.name])]
    lengths = [*known.lengths, *_lengths([folder(run, spec, arm) for arm in direct], direct)]
    result = known.model_copy(update={"comparisons": found, "lengths": lengths})
    results.write(run.arms_result, result)
    return result


def _compared(run: RunFolder, spec: FineTuneJobSpec, direct: Arm, every: Sequence[Arm]) -> tuple[Path, str]:
    """The evaluation and the point of the same stage and seed with the stages before it."""
    arm = next(arm for arm in every if not arm.direct and arm.seed == direct.seed)
    return folder(run, spec, arm).evaluation, stage_name(direct.first, direct.stages[0].name)


def _compare_suite(
    suite: str, pairs: Sequence[tuple[tuple[Path, str], Arm]], run: RunFolder, spec: FineTuneJobSpec, seed: int
) -> list[Comparison]:
    """One suite's metrics, of those that were measured both ways with every seed."""
    measured = []
    for (place, point), arm in pairs:
        here, key = folder(run, spec, arm).evaluation, _last(arm)
        staged, direct = (results.read(results.point_path(*one), PointResult) for one in ((place, point), (here, key)))
        one, other = (found.suite(suite) if found else None for found in (staged, direct))
        if one is None or other is None or not one.estimates or not other.estimates:
            return []
        rows = [results.rows_path(*path, suite) for path in ((place, point), (here, key))]
        measured.append((one, other, rows))
    found = []
    for metric in measured[0][0].estimates:
        values = [(one.estimates[metric].value, other.estimates[metric].value) for one, other, _ in measured if metric in other.estimates]
        if len(values) == len(measured):
            records = [RowRecords.load(path) for path in measured[0][2]] if len(measured) == 1 else []
            paired = paired_difference(records[0], records[1], metrics.STATISTICS[metric], seed=seed) if records else None
            entry = comparison(suite, metric, pairs[0][1].stages[0].name, values, paired)
            found += [entry] if entry is not None else []
    return found


def _last(arm: Arm) -> str:
    return stage_name(len(arm.stages) - 1, arm.stages[-1].name)


def _metric(stage: Stage) -> EarlyStoppingMetric:
    rule = stage.training.early_stopping
    return rule.metric if rule else EarlyStoppingMetric.LOSS


def _validated(at: RunFolder, arm: Arm, stage: Stage, metric: EarlyStoppingMetric) -> float:
    """The metric of the weights that would be published: the best step's, where the stage hands that over."""
    record = resolved(at, _last(arm)) or {}
    best = record.get("best")
    value = best if stage.hand_over_weights is HandOverWeights.BEST and best is not None else record.get("metrics", {}).get(metric)
    if value is None:
        raise TrainerError(Reason.INTERNAL_ERROR, f"seed {arm.seed} left no {metric} to choose by", where=str(at.root), stage=stage.name)
    return float(value)


def _seeds(chosen: Arm, staged: Sequence[Arm], values: Sequence[float], metric: EarlyStoppingMetric, stage: Stage) -> SeedsStatus:
    best = values[staged.index(chosen)]
    word = "lowest" if metric in LOWER_IS_BETTER else "highest"
    reason = (
        f"seed {chosen.seed} has the {word} {metric} on the validation rows of stage {stage.name}: {best:.4g}; "
        f"the {len(values)} seeds have {min(values):.4g} to {max(values):.4g}"
    )
    scores = [SeedScore(seed=arm.seed, value=value) for arm, value in zip(staged, values, strict=True)]
    return SeedsStatus(published=chosen.seed, metric=metric, scores=scores, reason=reason)


def _points(at: RunFolder, arm: Arm) -> dict[str, PointResult]:
    found = results.read_points(at.evaluation, [stage.name for stage in arm.stages])
    return {point.stage: point for point in found if point.stage is not None}


def _lengths(at: Sequence[RunFolder], every: Sequence[Arm]) -> list[Length]:
    found = []
    for place, arm in zip(at, every, strict=True):
        for index, stage in enumerate(arm.stages):
            record = resolved(place, stage_name(index, stage.name)) or {}
            if "steps" in record:
                found.append(Length(arm=arm.words, stage=stage.name, steps=record["steps"], step_used=record["stepUsed"]))
    return found
