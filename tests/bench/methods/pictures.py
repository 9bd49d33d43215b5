"""The two pictures: score against what is trained, and score against what is kept."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from finetune_trainer.report.pictures import FINAL, INK, MUTED, SECOND, Layout, figure, standalone
from tests.bench.methods.summary import GATES, Row

LEAST: Final = -0.12
"""How far left the second picture goes."""
LETTER: Final = 0.55
"""Width of a letter as a share of the size of the font, about."""


Point = tuple[float, float, Row]


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
            _scatter(made, axes, [(row.share, row.score.value, row) for row in rows])
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
        _scatter(made, axes, [_cut(row.other_change.value, row) for row in definitions if row.other_change is not None])
        return made

    return standalone("methods-kept", "Score against knowledge kept", _listed("Definitions", definitions, "kept"), draw)


def _cut(change: float, row: Row) -> Point:
    """A point far on the left would press all others together: it stands at the edge, and says where it belongs."""
    return (
        (change, row.score.value, row)
        if change > LEAST
        else (LEAST, row.score.value, replace(row, setting=f"{row.setting} ({change:+.0%})"))
    )


def _scatter(made: Figure, axes: Axes, points: Sequence[Point]) -> None:
    """Points with their names, which are put where nothing is yet."""
    if not points:
        return
    guarded = {True: SECOND, False: FINAL}
    for x, y, row in points:
        axes.plot([x], [y], marker="o", markersize=5, linestyle="none", color=guarded["+" in row.setting or "aggressive" in row.setting])
    axes.margins(x=0.12, y=0.08)
    made.draw_without_rendering()  # only then does the layout know where a point lies
    size = 8.0
    height, taken = size * 1.25, [_box(*axes.transData.transform((x, y)), 7, 7) for x, y, _ in points]
    scale = made.dpi / 72
    for x, y, row in sorted(points, key=lambda point: point[1]):
        px, py = axes.transData.transform((x, y))
        width = len(row.setting) * size * LETTER
        for distance, (side, rise) in itertools.product((0, 9, 18, 27, 36), ((1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1))):
            dx, dy = side * (7 + width / 2), rise * (8 + distance)
            box = _box(px + dx * scale, py + dy * scale, width * scale, height * scale)
            inside = axes.bbox.x0 <= box[0] and box[2] <= axes.bbox.x1 and axes.bbox.y0 <= box[1] and box[3] <= axes.bbox.y1
            if inside and not any(_meet(box, other) for other in taken):
                break
        taken.append(box)
        far = {"arrowprops": {"arrowstyle": "-", "color": MUTED, "linewidth": 0.5}} if abs(dy) > 10 else {}
        name = axes.annotate(
            row.setting, (x, y), (dx, dy), textcoords="offset points", ha="center", va="center", fontsize=size, color=INK, **far
        )
        name.set_in_layout(False)


def _box(x: float, y: float, width: float, height: float) -> tuple[float, float, float, float]:
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _meet(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _listed(task: str, rows: Sequence[Row], over: str) -> str:
    """What a screen reader says."""
    parts = []
    for row in rows:
        x = f"{row.share:.3%}" if over == "share" or row.other_change is None else f"{row.other_change.value:+.0%}"
        parts.append(f"{row.setting} {row.score.value:.2f} at {x}")
    return f"{task}: {'; '.join(parts)}."
