"""The chart's rules and boards, as tests ask for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import yaml

from scripts.render_chart import CHART

RULES: Final = CHART / "monitoring/rules.yaml"
BOARDS: Final = tuple(sorted((CHART / "monitoring/boards").glob("*.json")))
Panel = tuple[str, str, list[tuple[str, str]]]
"""Title, unit, and each query with its legend."""


def panels_of(board: Path) -> list[Panel]:
    """The panels of a board that ask for something."""
    panels = json.loads(board.read_text(encoding="utf-8"))["panels"]
    return [
        (
            panel["title"],
            panel["fieldConfig"]["defaults"]["unit"],
            [(target["expr"], target["legendFormat"]) for target in panel["targets"]],
        )
        for panel in panels
        if "targets" in panel
    ]


def expressions(board: Path) -> list[tuple[str, str]]:
    """Title of the panel and query, of each query of a board."""
    return [(title, query) for title, _, queries in panels_of(board) for query, _ in queries]


def recorded() -> list[str]:
    """The names that recording rules make."""
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return [rule["record"] for group in groups for rule in group["rules"] if "record" in rule]
