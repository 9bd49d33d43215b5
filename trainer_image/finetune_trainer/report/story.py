"""What the arms of a run tell together: the task's score, the knowledge kept, and what the stages before did. Pure; html.py shows it.

Its figures are means over the seeds with Student's t intervals where there are several seeds, else the one run's with bootstrap intervals.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from finetune_trainer.evaluation.results import BASE, GateVerdict, PointResult, estimate
from finetune_trainer.evaluation.spread import ArmsResult, Comparison, Spread, spread
from finetune_trainer.evaluation.table import Cell, Row
from finetune_trainer.report.pictures import Picture
from finetune_trainer.report.plots import evaluation_pictures, gains_picture
from finetune_trainer.report.view import View


@dataclass(frozen=True)
class Chapter:
    """A part of the story: the task, or what was kept."""

    title: str
    words: str
    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Story:
    """Everything that the section shows."""

    chapters: Sequence[Chapter]
    published: str
    """Which seed, and why; empty where there is one."""
    seeds: Sequence[int]
    spreads: Sequence[Spread]
    comparisons: Sequence[Comparison]
    compared: str
    """The stage that was also trained directly."""
    budget: str
    gains: Picture | None


def story(view: View, objectives: Mapping[str, str], verdicts: Sequence[GateVerdict]) -> Story | None:
    """Return the story, None for a run of one arm. `objectives`: of each suite, by its name."""
    arms = view.arms
    if arms is None:
        return None
    rows = story_rows(view.points, arms)
    task = str(view.spec.stages[-1].objective)
    groups = [
        ("task", "What was learned", "The task, on rows that no stage has seen.", [row for row in rows if objectives[row.suite] == task]),
        ("kept", "What was kept", "What the base knew, and a gate watches over.", [row for row in rows if objectives[row.suite] != task]),
    ]
    return Story(
        chapters=[
            Chapter(title, words, evaluation_pictures(mine, objectives, verdicts, name=f"story-{name}"))
            for name, title, words, mine in groups
            if mine
        ],
        published=arms.seeds.reason if arms.seeds else "",
        seeds=[score.seed for score in arms.seeds.scores] if arms.seeds else [],
        spreads=arms.spreads,
        comparisons=arms.comparisons,
        compared=arms.comparisons[0].stage if arms.comparisons else "",
        budget=_budget(arms),
        gains=gains_picture(arms.comparisons) if any(statistics.fmean(one.direct) for one in arms.comparisons) else None,
    )


def story_rows(points: Sequence[PointResult], arms: ArmsResult) -> list[Row]:
    """Return a row a suite and metric: the base, after each stage, and after the compared stage alone."""
    base = next((point for point in points if point.point == BASE), None)
    over = {(one.suite, one.metric, one.stage): one for one in arms.spreads}
    against = {(one.suite, one.metric): one for one in arms.comparisons}
    rows = []
    for suite, metric in dict.fromkeys((one.name, each) for point in points for one in point.suites for each in one.estimates):
        first = estimate(base, suite, metric)
        cells = [Cell("base", first.value, first.low, first.high)] if first else []
        for point in points:
            if point.stage is not None and (own := estimate(point, suite, metric)) is not None:
                one = over.get((suite, metric, point.stage))
                cells.append(
                    Cell(point.stage, one.mean, one.low, one.high, seeds=tuple(one.values))
                    if one
                    else Cell(point.stage, own.value, own.low, own.high)
                )
        if found := against.get((suite, metric)):
            mean, _, low, high = spread(found.direct)
            several = len(found.direct) > 1
            cells.append(Cell(f"{found.stage} alone", mean, low, high, seeds=tuple(found.direct) if several else (), direct=True))
        rows.append(Row(suite, str(metric), cells, None))
    return rows


def _budget(arms: ArmsResult) -> str:
    """How long the compared stage was trained both ways. Example: 24 optimizer steps with and without the stages before it"""
    if not arms.comparisons:
        return ""
    stage = arms.comparisons[0].stage
    steps: dict[bool, list[int]] = {True: [], False: []}
    for one in arms.lengths:
        if one.stage == stage:
            steps[one.arm.endswith("direct")].append(one.steps)
    staged, direct = (sorted(set(steps[way])) for way in (False, True))
    if staged == direct and len(staged) == 1:
        return f"{staged[0]:,} optimizer steps both ways, on the same rows"
    return f"optimizer steps with the stages before it: {', '.join(map(str, staged))}; alone: {', '.join(map(str, direct))} (early stopping ended some)"
