"""Draws a board as its queries answer, each panel at its place, where no Grafana is to be had: for people to look at, and for the docs."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any, Final

from tests.monitoring.server import Prometheus

INCHES: Final = (17.0, 0.34)
"""Width of a board, and height of one of its 24ths."""
HIDDEN: Final = frozenset({"__name__", "instance", "job"})
MOST_NAMED: Final = 8
"""Series that a legend names."""
LONGEST_NAME: Final = 30
PAPER, INK, FAINT, LINE = "#ffffff", "#1f2430", "#6b7280", "#e5e7eb"
Named = tuple[str, dict[str, str], list[tuple[float, float]]]


def draw(board: Path, server: Prometheus, target: Path, **variables: str) -> None:
    """Write a PNG of each query of the board over all that the server saw."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams["font.family"] = ["DejaVu Sans"]
    document = json.loads(board.read_text(encoding="utf-8"))
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in document["panels"]) + 2
    height = rows * INCHES[1]
    figure = Figure(figsize=(INCHES[0], height), facecolor=PAPER)
    figure.text(0.008, 1 - 0.9 / rows, document["title"], fontsize=15, weight="bold", color=INK, va="center")
    for panel in document["panels"]:
        place = panel["gridPos"]
        left, top = place["x"] / 24, 1 - (place["y"] + 2) / rows
        if panel["type"] == "row":
            figure.text(left + 0.008, top - 0.5 / rows, panel["title"], fontsize=12, weight="bold", color=INK, va="center")
            continue
        width, tall = place["w"] / 24, place["h"] / rows
        figure.text(left + 0.008, top - 0.55 / rows, panel["title"], fontsize=9, color=INK, va="center")
        inner = (left + 0.045, top - tall + 1.9 / rows, width - 0.055, tall - 3.0 / rows)
        small = (left + 0.008, top - tall + 0.3 / rows, width - 0.016, tall - 1.4 / rows)
        axes = figure.add_axes(inner if panel["type"] == "timeseries" else small)
        named = [
            (_name(target["legendFormat"], labels), labels, values)
            for target in panel["targets"]
            for labels, values in (server.now if target.get("instant") else server.asked)(target["expr"], **variables)
        ]
        KINDS[panel["type"]](axes, named, panel["fieldConfig"]["defaults"], server.began)
    figure.savefig(target, dpi=72, pil_kwargs={"optimize": True})


def shown(value: float, unit: str) -> str:
    """A value as Grafana shows it in this unit."""
    match unit:
        case "s":
            size = abs(value)
            return f"{value:.3g} s" if size < 60 else f"{value / 60:.3g} min" if size < 3600 else f"{value / 3600:.3g} h"
        case "bytes":
            return f"{value / 2**30:.3g} GiB" if abs(value) >= 2**30 else f"{value / 2**20:.3g} MiB"
        case "percentunit":
            return f"{100 * value:.3g} %"
        case "dateTimeFromNow":
            return f"{time.time() - value / 1000:.0f} s ago"
        case "ops" | "reqps":
            return f"{value:.3g} /s"
        case _:
            return f"{value / 1000:.3g}k" if abs(value) >= 10_000 else f"{value:.4g}"


def _name(legend: str, labels: dict[str, str]) -> str:
    for label, value in labels.items():
        legend = legend.replace(f"{{{{{label}}}}}", value)
    return _drawable(legend) or "value"


def _drawable(text: str) -> str:
    """With a box for what DejaVu has no glyph for: labels may be of any script."""
    return "".join(each if ord(each) < 0x2000 or each == "…" else "□" for each in text)


def _lines(axes: Any, named: list[Named], defaults: dict[str, Any], began: float) -> None:
    unit = defaults["unit"]
    axes.set_facecolor(PAPER)
    for number, (name, _, values) in enumerate(named):
        name = name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"
        label = name if number < MOST_NAMED else f"… and {len(named) - MOST_NAMED} more" if number == MOST_NAMED else None
        at, of = [moment - began for moment, _ in values], [value for _, value in values]
        axes.plot(at, of, label=label, linewidth=1.4, marker="o" if len(at) < 3 else None, markersize=3)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(LINE)
    axes.grid(axis="y", color=LINE, linewidth=0.8)
    axes.tick_params(labelsize=7, colors=FAINT, length=0)
    low, high = axes.get_ylim()
    if "min" in defaults or low >= -0.1 * (high - low):
        axes.set_ylim(bottom=min(0.0, *(value for _, _, values in named for _, value in values)) if named else 0.0)
    if "max" in defaults:
        axes.set_ylim(top=defaults["max"] * 1.02)
    top = axes.get_ylim()[1]
    if named and not any(value for _, _, values in named for _, value in values):
        axes.set_ylim(0, 1)
    elif unit == "bytes" or (unit == "s" and top > 90):
        step = 2.0 ** math.ceil(math.log2(top / 4)) if unit == "bytes" else 60.0 * math.ceil(top / 240)
        axes.set_yticks([step * number for number in range(int(top / step) + 1)])
    else:
        axes.locator_params(axis="y", nbins=4)
    axes.yaxis.set_major_formatter(lambda value, _: shown(value, unit))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0f} s")
    if not named:
        axes.text(0.5, 0.5, "no data", transform=axes.transAxes, ha="center", color=FAINT, fontsize=9)
        return
    axes.legend(
        fontsize=6.5,
        loc="upper left",
        bbox_to_anchor=(0, -0.13),
        ncols=round(axes.get_position().width * 12),
        frameon=False,
        borderaxespad=0,
        labelcolor=INK,
        handlelength=1,
    )


def _stat(axes: Any, named: list[Named], defaults: dict[str, Any], began: float) -> None:
    axes.axis("off")
    texts = [name if defaults["unit"] == "none" else shown(values[-1][1], defaults["unit"]) for name, _, values in named]
    axes.text(0.5, 0.5, ", ".join(dict.fromkeys(texts)) or "–", transform=axes.transAxes, ha="center", va="center", fontsize=15, color=INK)


def _bars(axes: Any, named: list[Named], defaults: dict[str, Any], began: float) -> None:
    axes.axis("off")
    most = max((abs(values[-1][1]) for _, _, values in named), default=1.0) or 1.0
    for number, (name, _, values) in enumerate(named):
        y, value = 1 - (number + 0.5) / max(4, len(named)), values[-1][1]
        axes.barh(y, 0.55 * abs(value) / most, left=0.35, height=0.5 / max(4, len(named)), color="#3b82f6")
        axes.text(0.34, y, name, ha="right", va="center", fontsize=8, color=INK)
        texts = {option: each["text"] for mapping in defaults.get("mappings", []) for option, each in mapping["options"].items()}
        text = texts.get(f"{value:g}") or shown(value, defaults["unit"])
        axes.text(0.36 + 0.55 * abs(value) / most, y, text, va="center", fontsize=8, color=INK)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)


def _table(axes: Any, named: list[Named], defaults: dict[str, Any], began: float) -> None:
    """The newest of each set of labels."""
    axes.axis("off")
    newest = sorted(named, key=lambda each: each[2][-1][0])[-4:]
    columns = [label for label in dict.fromkeys(label for _, labels, _ in newest for label in labels) if label not in HIDDEN]
    for at, column in enumerate(columns):
        x = at / max(1, len(columns))
        axes.text(x, 0.92, column, fontsize=8, color=FAINT, va="center")
        for row, (_, labels, _) in enumerate(reversed(newest)):
            axes.text(x, 0.72 - 0.2 * row, _drawable(labels.get(column, "")), fontsize=8.5, color=INK, va="center")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)


KINDS: Final = {"timeseries": _lines, "stat": _stat, "bargauge": _bars, "table": _table}
