"""The report's pictures: curves, the evaluation with its intervals, lengths and classes. Pure: figures in, SVG out."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.ticker import FuncFormatter, MaxNLocator

from finetune_api.v1alpha1.evaluation import Metric
from finetune_api.v1alpha1.stage import Objective
from finetune_trainer.data.report import Histogram
from finetune_trainer.evaluation.metrics import LOWER_IS_BETTER
from finetune_trainer.evaluation.results import GateVerdict
from finetune_trainer.evaluation.spread import Comparison
from finetune_trainer.evaluation.table import Row
from finetune_trainer.evaluation.table import figure as number
from finetune_trainer.report.pictures import BASE, FINAL, INK, MIDDLE, MUTED, PAPER, SECOND, Layout, Picture, figure, picture
from finetune_trainer.report.view import Curve, Series

MOST_POINTS: Final = 500
"""Points of a curve; more would not be seen, and would make the report heavy."""
MOST_PANELS: Final = 12
MOST_CLASSES: Final = 30
GAP: Final = 5
"""Pixels between a gate's line and a label; a browser's letters are a little wider than those that are measured with."""
LONG_NAME: Final = 10
"""Characters of a stage's name that leave no room for three panels side by side."""


def curve_picture(index: int, curve: Curve) -> Picture:
    """Loss (training and validation) and learning rate of a stage, over optimizer steps."""
    title = f"Loss and learning rate in stage {curve.stage}"

    def draw(layout: Layout) -> Figure:
        ratios = {"height_ratios": [3, 2]} if layout.narrow else {"width_ratios": [3, 2]}
        made, axes = figure(
            layout, 5.2 if layout.narrow else 3.2, rows=2 if layout.narrow else 1, columns=1 if layout.narrow else 2, ratios=ratios
        )
        _loss(axes[0], curve)
        _learning_rate(axes[1], curve)
        return made

    return picture(f"curve-{index}", title, _curve_words(curve), draw)


def _loss(axes: Axes, curve: Curve) -> None:
    axes.set_title("Loss")
    axes.set_ylabel(unit(Metric.LOSS, curve.objective))
    axes.set_xlabel("optimizer step")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
    steps, values = _thinned(curve.loss)
    axes.plot(steps, values, color=FINAL, label="training", marker="o" if len(steps) < 3 else None)
    if curve.validation_loss:
        steps, values = _thinned(curve.validation_loss)
        axes.plot(steps, values, color=SECOND, linestyle="--", marker="D", markersize=4.5, label="validation")
    for number_, step in enumerate(curve.resumed):
        axes.axvline(step, color=MUTED, linewidth=1, linestyle=":", label="resumed" if number_ == 0 else None)
    if curve.validation_loss or curve.resumed:
        axes.legend(loc="best")


def _learning_rate(axes: Axes, curve: Curve) -> None:
    axes.set_title("Learning rate")
    axes.set_xlabel("optimizer step")
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _rate(value)))
    steps, values = _thinned(curve.learning_rate)
    axes.plot(steps, values, color=MIDDLE, marker="o" if len(steps) < 3 else None)
    axes.set_ylim(bottom=0)


def _rate(value: float) -> str:
    """0.0003 as 3e-4: what stands in a manifest."""
    if value == 0:
        return "0"
    digits, _, exponent = f"{value:.1e}".partition("e")
    return f"{digits.removesuffix('.0')}e{int(exponent)}"


def told_picture(index: int, curve: Curve) -> Picture | None:
    """How often dann's discriminators tell a row's domain (confounder), over optimizer steps, and what guessing tells."""
    if not curve.told:
        return None

    def draw(layout: Layout) -> Figure:
        made, (axes,) = figure(layout, 2.9)
        axes.set_title("Told from the features")
        axes.set_xlabel("optimizer step")
        axes.set_ylabel("share of rows")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
        for told, colour in zip(curve.told, (FINAL, SECOND), strict=False):
            steps, values = _thinned(told.accuracy)
            axes.plot(steps, values, color=colour, label=told.role, marker="o" if len(steps) < 3 else None)
            steps, values = _thinned(told.chance)
            axes.plot(steps, values, color=colour, linestyle=":", linewidth=1, label="chance")
        axes.set_ylim(0, 1.02)
        axes.legend(loc="best")
        return made

    words = " ".join(
        f"The {told.role} is told of {told.accuracy[-1][1]:.1%} of the rows at step {told.accuracy[-1][0]:g}; chance is {told.chance[-1][1]:.1%}."
        for told in curve.told
    )
    return picture(f"told-{index}", f"What features tell in stage {curve.stage}", words, draw, small=True)


def _thinned(series: Series) -> tuple[list[float], list[float]]:
    """Means of equal runs of points where there are more than can be seen."""
    run = math.ceil(len(series) / MOST_POINTS) if series else 1
    chunks = [series[start : start + run] for start in range(0, len(series), run)]
    return [chunk[-1][0] for chunk in chunks], [float(np.mean([value for _, value in chunk])) for chunk in chunks]


def _curve_words(curve: Curve) -> str:
    if not curve.loss:
        return "No step was logged."
    (first, start), (last, end) = curve.loss[0], curve.loss[-1]
    words = f"The training loss goes from {start:.3f} at step {first:g} to {end:.3f} at step {last:g}."
    if curve.validation_loss:
        words += f" The last validation loss is {curve.validation_loss[-1][1]:.3f}."
    return words


def evaluation_pictures(
    rows: Sequence[Row], objectives: Mapping[str, str], verdicts: Sequence[GateVerdict], *, name: str = "evaluation"
) -> list[Picture]:
    """Dots with 95 % whiskers: a panel a suite and metric, in it the base and each stage. `objectives`: of each suite, by its name; `name`: unique in the page."""
    shown = [row for row in rows if any(cell.value is not None for cell in row.cells)]
    chunks = [shown[start : start + MOST_PANELS] for start in range(0, len(shown), MOST_PANELS)]
    return [_evaluation(f"{name}-{index}", chunk, objectives, verdicts) for index, chunk in enumerate(chunks)]


def _evaluation(name: str, rows: Sequence[Row], objectives: Mapping[str, str], verdicts: Sequence[GateVerdict]) -> Picture:
    def draw(layout: Layout) -> Figure:
        most = 2 if len(rows) == 4 or any(len(cell.point) > LONG_NAME for row in rows for cell in row.cells) else 3
        columns = 1 if layout.narrow else min(most, len(rows))
        lines = math.ceil(len(rows) / columns)
        points = max(len(row.cells) for row in rows)
        made, axes = figure(layout, lines * (1.35 + 0.42 * points), rows=lines, columns=columns)
        labels = [
            _whiskers(place, row, objectives.get(row.suite, ""), thresholds(verdicts, row), room=28 if columns < 3 else 22)
            for place, row in zip(axes, rows, strict=False)
        ]
        for place in axes[len(rows) :]:
            place.set_axis_off()
        made.draw_without_rendering()  # only now the axes have their places
        for place, row, found in zip(axes, rows, labels, strict=False):
            _clear_of(place, thresholds(verdicts, row), found)
        return made

    words = " ".join(
        f"{row.suite} {row.metric}: " + ", ".join(f"{cell.point} {number(cell.value, row.metric)}" for cell in row.cells) + "."
        for row in rows
    )
    return picture(name, "Evaluation of the base model and after each stage, with 95 % intervals", words, draw)


def _whiskers(axes: Axes, row: Row, objective: str, gates: Sequence[float], *, room: int) -> list[Annotation]:
    """Return the labels of the values. `room`: characters of a title; half of them for a label."""
    last, labels = len(row.cells) - 1, []
    for place, cell in enumerate(row.cells):
        if cell.value is None:
            axes.text(0.5, place, "not applicable", ha="center", va="center", color=MUTED, transform=axes.get_yaxis_transform())
            continue
        tuned = not any(after.value is not None and not after.direct for after in row.cells[place + 1 :])
        colour = BASE if cell.point == "base" else MUTED if cell.direct else FINAL if tuned else MIDDLE
        low, high = cell.low if cell.low is not None else cell.value, cell.high if cell.high is not None else cell.value
        axes.plot([low, high], [place, place], color=colour, linewidth=3, solid_capstyle="round", alpha=0.55)
        axes.plot(
            [cell.value],
            [place],
            color=colour,
            marker="s" if cell.direct else "o" if place == 0 or tuned else "D",
            markersize=8,
            markeredgecolor=PAPER,
        )
        axes.plot(cell.seeds, [place + 0.2] * len(cell.seeds), color=colour, linestyle="none", marker="|", markersize=7)
        label = number(cell.value, row.metric)
        labels.append(axes.annotate(label, (cell.value, place), (0, 7), textcoords="offset points", ha="center", color=INK))
    for value in gates:
        axes.axvline(value, color=SECOND, linestyle="--", linewidth=1.4)
        axes.annotate("gate", (value, -0.62), (3, 0), textcoords="offset points", ha="left", va="center", color=SECOND)
    title = f"{row.suite}: {row.metric}"
    axes.set_title(title if len(title) <= room else f"{short(row.suite, room)}\n{row.metric}")
    axes.set_xlabel(f"{unit(row.metric, objective)}, {'lower' if row.lower_is_better else 'higher'} is better")
    axes.set_yticks(range(len(row.cells)), [_label(cell.point, room // 2) for cell in row.cells])
    axes.set_ylim(last + 0.5, -0.85)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value)))
    axes.margins(x=0.14)
    return labels


def _clear_of(axes: Axes, gates: Sequence[float], labels: Sequence[Annotation]) -> None:
    """Move labels that a gate's line would cross to the side of it on which their value is."""
    for gate in gates:
        line, _ = axes.transData.transform((gate, 0))
        for label in labels:
            box, (value, _) = label.get_window_extent(), axes.transData.transform(label.xy)
            if box.x0 - GAP < line < box.x1 + GAP:
                pixels = line - GAP - box.x1 if value <= line else line + GAP - box.x0
                beside, above = label.xyann
                label.xyann = (beside + pixels * 72 / axes.figure.dpi, above)


def gains_picture(comparisons: Sequence[Comparison]) -> Picture:
    """By how much the stages before one helped or hurt, as a share of what it came to alone, with 95 % intervals and a line at nothing."""
    shown = [(one, statistics.fmean(one.direct)) for one in comparisons if statistics.fmean(one.direct)][:MOST_PANELS]

    def draw(layout: Layout) -> Figure:
        made, (axes,) = figure(layout, 0.9 + 0.5 * len(shown))
        for place, (one, alone) in enumerate(shown):
            low, value, high = (100 * figure / abs(alone) for figure in (one.low, one.gain, one.high))
            colour = {"Helped": FINAL, "Hurt": SECOND, "Unclear": MUTED}[one.verdict]
            axes.plot([low, high], [place, place], color=colour, linewidth=3, solid_capstyle="round", alpha=0.55)
            axes.plot([value], [place], color=colour, marker="o", markersize=8, markeredgecolor=PAPER)
            text = f"{value:+.1f} %".replace("-", "−")
            axes.annotate(text, (value, place), (0, 7), textcoords="offset points", ha="center", color=INK)
        axes.axvline(0, color=INK, linewidth=1)
        room = 16 if layout.narrow else 30
        axes.set_yticks(range(len(shown)), [f"{short(one.suite, room)}\n{one.metric}" for one, _ in shown])
        axes.set_ylim(len(shown) - 0.5, -0.7)
        axes.set_xlabel(f"% better than {short(comparisons[0].stage, 16)} alone")
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        axes.margins(x=0.14)
        return made

    words = " ".join(f"{one.suite} {one.metric}: {100 * one.gain / abs(alone):+.1f} %, {one.verdict}." for one, alone in shown)
    return picture("gains", "By how much the stages before helped or hurt, with 95 % intervals", words, draw)


def _tick(value: float) -> str:
    """A figure of an axis: 120,000 is 120k, so that labels keep apart."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if letter == 'k' else size):g}{letter}"
    return f"{value:g}"


def _label(point: str, room: int) -> str:
    return point if point == "base" else f"after {short(point, room)}"


def short(text: str, room: int) -> str:
    """A name in at most `room` characters: its middle goes, because names tend to differ at their ends."""
    if len(text) <= room:
        return text
    head = (room - 1) // 2
    return f"{text[:head]}…{text[len(text) - (room - 1 - head) :]}"


def thresholds(verdicts: Sequence[GateVerdict], row: Row) -> list[float]:
    """Where the gates of this row stand, in the metric's own unit."""
    found = []
    for verdict in verdicts:
        if (
            (verdict.gate.suite, str(verdict.gate.metric)) != (row.suite, row.metric)
            or verdict.reference is None
            or verdict.required is None
        ):
            continue
        sign = -1 if verdict.gate.metric in LOWER_IS_BETTER else 1
        found.append(verdict.reference.value + sign * verdict.required)
    return found


UNITS: Final[Mapping[str, str]] = {
    Metric.PERPLEXITY: "perplexity a token",
    Metric.TOKEN_ACCURACY: "share of tokens",
    Metric.EXACT_MATCH: "share of rows",
    Metric.ACCURACY: "share of rows",
}


def unit(metric: str, objective: str) -> str:
    """What a figure counts."""
    if metric == Metric.LOSS:
        return "nats a row" if objective == Objective.CLASSIFICATION else "nats a token"
    return UNITS.get(metric, "0 to 1")


def lengths_picture(index: int, name: str, histogram: Histogram, limit: int) -> Picture:
    """Rows by their length in tokens, before truncation, with the longest length that is used."""
    counts, edges = histogram.counts, histogram.edges
    total = sum(counts)

    def draw(layout: Layout) -> Figure:
        made, (axes,) = figure(layout, 2.9)
        places = np.arange(len(counts))
        axes.bar(places, counts, width=0.9, color=FINAL)
        axes.set_title("Rows by length")
        axes.set_xlabel("tokens a row, before truncation")
        axes.set_ylabel("rows")
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.grid(axis="x", visible=False)
        every = max(1, math.ceil(len(counts) / (6 if layout.narrow else 12)))
        axes.set_xticks(places[::every] - 0.5, [f"{edges[place]:,}" for place in places[::every]])
        beyond = _place(limit + 1, edges)
        if beyond is not None:
            axes.axvline(beyond, color=SECOND, linestyle="--", linewidth=1.4)
            axes.annotate(
                f"maxLength {limit:,}",
                (beyond, 0.97),
                (-4, 0),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                ha="right",
                va="top",
                color=SECOND,
            )
        return made

    middle = _median(histogram)
    words = f"{total:,} rows; half of them have at most about {middle:,} tokens; rows longer than {limit:,} tokens do not fit."
    return picture(f"lengths-{index}", f"Rows of {name} by their length in tokens", words, draw, small=True)


def _place(length: int, edges: Sequence[int]) -> float | None:
    """Where a length stands on the axis of bars, which are one apart; None where it is beyond them."""
    if not edges or not edges[0] <= length < edges[-1]:
        return None
    bar = int(np.searchsorted(edges, length, side="right")) - 1
    return bar - 0.5 + (length - edges[bar]) / (edges[bar + 1] - edges[bar])


def _median(histogram: Histogram) -> int:
    sums = np.cumsum(histogram.counts)
    return int(histogram.edges[int(np.searchsorted(sums, sums[-1] / 2)) + 1] - 1) if len(sums) else 0


def classes_picture(index: int, name: str, classes: Mapping[str, int]) -> Picture:
    """Rows a class, the largest first."""
    ordered = sorted(classes.items(), key=lambda entry: -entry[1])
    shown, rest = ordered[:MOST_CLASSES], ordered[MOST_CLASSES:]
    if rest:
        shown.append((f"{len(rest)} more", sum(count for _, count in rest)))

    def draw(layout: Layout) -> Figure:
        made, (axes,) = figure(layout, 0.9 + 0.26 * len(shown))
        bars = axes.barh(range(len(shown)), [count for _, count in shown], color=FINAL, height=0.72)
        axes.bar_label(bars, fmt="{:,.0f}", padding=3, color=MUTED)
        axes.set_yticks(range(len(shown)), [short(label, 26) for label, _ in shown])
        axes.invert_yaxis()
        axes.set_title("Rows by class")
        axes.set_xlabel("rows")
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        axes.margins(x=0.12)
        return made

    words = ", ".join(f"{label} {count:,}" for label, count in shown)
    return picture(f"classes-{index}", f"Rows of {name} by class", words, draw, small=True)
