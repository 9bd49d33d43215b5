"""The two pictures: score against what is trained, and score against what is kept."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from finetune_trainer.report.pictures import FINAL, INK, MUTED, SECOND, Layout, figure, standalone
from tests.bench.methods.summary import GATES, Row

LEAST: Final = -0.12
MOST: Final = 0.26
"""How far left and right the second picture goes."""
LETTER: Final = 0.58
"""Width of a letter as a share of the size of the font, about."""

SIZE: Final = 8.0
"""Of the names, in points."""
GAPS: Final = (0, 9, 18, 27, 36, 48, 60, 75, 90, 110, 130, 150)
"""How far above or below its point a name may stand, in points, nearest first."""

Point = tuple[float, float, Row, str]
"""Where, which row, and what it is called there."""
Box = tuple[float, float, float, float]


def share_picture(definitions: Sequence[Row], classes: Sequence[Row]) -> str:
    """Score over the share of the parameters that are trained, a panel a task."""

    def draw(layout: Layout) -> Figure:
        made, (left, right) = figure(layout, 10.5, rows=2)
        for axes, rows, name in ((left, definitions, "Definitions: loss a token (lower is better)"), (right, classes, "Classes: accuracy")):
            axes.set_title(name)
            axes.set_xscale("log")
            axes.set_xlabel("trained share of the parameters")
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
            axes.xaxis.set_minor_formatter(NullFormatter())
            _scatter(made, axes, [(row.share, row.score.value, row, row.setting) for row in rows])
        return made

    words = "Two scatter plots. " + _listed("Definitions", definitions, "share") + " " + _listed("Classes", classes, "share")
    return standalone("methods-share", "Score against the trained share", words, draw)


def kept_picture(definitions: Sequence[Row]) -> str:
    """Score over how much the perplexity on text of another kind has risen."""

    def draw(layout: Layout) -> Figure:
        made, (axes,) = figure(layout, 7.5)
        axes.set_title("Definitions: loss a token (lower is better)")
        axes.set_xlabel("perplexity on the Python reference, against before the task")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:+.0f} %"))
        for gate, style in zip(GATES, (":", "--"), strict=True):
            axes.axvline(gate, color=MUTED, linestyle=style, linewidth=1, label=f"a gate at +{gate:.0%}")
        axes.legend(loc="upper left")
        _scatter(made, axes, kept_points(definitions))
        return made

    return standalone("methods-kept", "Score against knowledge kept", _listed("Definitions", definitions, "kept"), draw)


def kept_points(definitions: Sequence[Row]) -> list[Point]:
    """Those of the second picture."""
    return [_cut(row.other_change.value, row) for row in definitions if row.other_change is not None]


def _cut(change: float, row: Row) -> Point:
    """A point far outside would press all others together: it stands at the edge, and says where it belongs."""
    name = row.setting if LEAST < change < MOST else f"{row.setting} ({change:+.0%})"
    return min(max(change, LEAST), MOST), row.score.value, row, name


def _scatter(made: Figure, axes: Axes, points: Sequence[Point]) -> None:
    """Points with their names, which are put where nothing is yet."""
    if not points:
        return
    guarded = {True: SECOND, False: FINAL}
    for x, y, row, _ in points:
        axes.plot([x], [y], marker="o", markersize=5, linestyle="none", color=guarded["+" in row.setting or "aggressive" in row.setting])
    axes.margins(x=0.12, y=0.08)
    made.draw_without_rendering()  # only then does the layout know where a point lies
    scale = made.dpi / 72
    points = sorted(points, key=lambda point: point[1])
    at = [tuple(axes.transData.transform((x, y)) / scale) for x, y, *_ in points]
    frame = tuple(end / scale for end in (axes.bbox.x0, axes.bbox.y0, axes.bbox.x1, axes.bbox.y1))
    for (x, y, _, words), (dx, dy) in zip(points, offsets(at, [words for *_, words in points], frame), strict=True):
        far = {"arrowprops": {"arrowstyle": "-", "color": MUTED, "linewidth": 0.5, "shrinkA": 0}} if abs(dy) > 10 else {}
        name = axes.annotate(words, (x, y), (dx, dy), textcoords="offset points", ha="center", va="center", fontsize=SIZE, color=INK, **far)
        name.set_in_layout(False)


def offsets(at: Sequence[tuple[float, float]], names: Sequence[str], frame: Box) -> list[tuple[float, float]]:
    """Where each name stands from its point: beside it if there is room, else the nearest place that is free, in points."""
    taken, found = [_box(*place, 7, 7) for place in at], []
    for (x, y), name in zip(at, names, strict=True):
        width = box_width(name)
        alone = sum(abs(other - x) < width / 2 for other, _ in at) == 1  # else a line up or down would run through other points
        sides = ((1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1), *(((0, 1), (0, -1)) if alone else ()))
        tried = []
        for gap, (side, rise) in itertools.product(GAPS, sides):
            offset = side * (7 + width / 2), rise * (8 + gap)
            box = _box(x + offset[0], y + offset[1], width, SIZE * 1.25)
            inside = frame[0] <= box[0] and box[2] <= frame[2] and frame[1] <= box[1] and box[3] <= frame[3]
            tried.append((sum(_common(box, other) for other in taken) + (0 if inside else 1e6), offset, box))
            if not tried[-1][0]:
                break
        _, offset, box = min(tried, key=lambda one: one[0])
        taken.append(box)
        found.append(offset)
    return found


def box_width(name: str) -> float:
    """Of a name, in points."""
    return len(name) * SIZE * LETTER


def _box(x: float, y: float, width: float, height: float) -> Box:
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _common(one: Box, other: Box) -> float:
    """The area that two boxes share."""
    return max(min(one[2], other[2]) - max(one[0], other[0]), 0.0) * max(min(one[3], other[3]) - max(one[1], other[1]), 0.0)


def _listed(task: str, rows: Sequence[Row], over: str) -> str:
    """What a screen reader says."""
    parts = []
    for row in rows:
        x = f"{row.share:.3%}" if over == "share" or row.other_change is None else f"{row.other_change.value:+.0%}"
        parts.append(f"{row.setting} {row.score.value:.2f} at {x}")
    return f"{task}: {'; '.join(parts)}."
