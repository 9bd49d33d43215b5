"""Draws what a board's queries return, a panel each, for a look at it where no Grafana is to be had."""

from __future__ import annotations

from pathlib import Path

from tests.monitoring import panels_of
from tests.monitoring.server import Prometheus

COLUMNS = 4


def draw(board: Path, server: Prometheus, target: Path, **variables: str) -> None:
    """Write a PNG of each query of the board over all that the server saw."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams["font.family"] = ["DejaVu Sans"]
    panels = panels_of(board)
    rows = -(-len(panels) // COLUMNS)
    figure = Figure(figsize=(5 * COLUMNS, 3 * rows))
    figure.subplots_adjust(left=0.03, right=0.99, bottom=0.03, top=0.97, hspace=0.35, wspace=0.15)
    places = figure.subplots(rows, COLUMNS, squeeze=False).flat
    for (title, unit, queries), place in zip(panels, places, strict=False):
        place.set_title(f"{title} [{unit}]", fontsize=9)
        for query, legend in queries:
            for labels, values in server.asked(query, **variables):
                name = legend
                for label, value in labels.items():
                    name = name.replace(f"{{{{{label}}}}}", value)
                place.plot(
                    [at - server.began for at, _ in values],
                    [value for _, value in values],
                    label=name[:40] or "value",
                    marker=".",
                    markersize=2,
                )
        if place.lines:
            place.legend(fontsize=6, loc="upper left")
    for place in list(places):
        place.axis("off")
    figure.savefig(target, dpi=60)
