"""The picture of a learning-rate range test: the loss over the rate, raw and smoothed, with what is suggested."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from finetune_trainer.report.pictures import BASE, FINAL, INK, MIDDLE, SECOND, Layout, figure, standalone


def range_picture(test: Mapping[str, Any]) -> str:
    """Return the SVG. test: as lr-range.json has it."""
    title = f"Learning-rate range test of stage {test['stage']}"
    return standalone("lr-range", title, _words(test), lambda layout: _draw(layout, title, test))


def _draw(layout: Layout, title: str, test: Mapping[str, Any]) -> Figure:
    made, (axes,) = figure(layout, 4.2)
    axes.set_title(title)
    axes.set_xscale("log")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("loss after the update (nats)")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}".replace("e-0", "e-")))
    axes.plot(test["rates"], test["losses"], color=BASE, linewidth=0.8, label="each step")
    axes.plot(test["rates"], test["smoothed"], color=FINAL, label="smoothed")
    least, most = min(test["losses"]), min(max(test["losses"]), 1.5 * max(test["smoothed"][0], min(test["smoothed"])))
    axes.set_ylim(least - 0.05 * (most - least or 1.0), most + 0.05 * (most - least or 1.0))
    for name, colour, words in (
        ("steepest", MIDDLE, "steepest"), ("safe", SECOND, "a tenth of the least"), ("declared", INK, "in the manifest"),
    ):  # fmt: skip
        rate = test[name]
        if rate is not None and test["rates"][0] <= rate <= test["rates"][-1]:
            axes.axvline(rate, color=colour, linewidth=1.2, linestyle="--" if name != "declared" else ":", label=f"{words}: {rate:.2g}")
    axes.legend(loc="best")
    return made


def _words(test: Mapping[str, Any]) -> str:
    """What a screen reader says."""
    if not test["rates"]:
        return "The loss was no number after the first update."
    ends = f"The rate rises from {test['rates'][0]:.2g} to {test['rates'][-1]:.2g}."
    if test["steepest"] is None:
        return f"{ends} The loss did not fall."
    return f"{ends} The loss falls fastest at {test['steepest']:.2g}; a tenth of the rate with the least loss is {test['safe']:.2g}."
