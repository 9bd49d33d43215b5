"""What a command of ours shows in a terminal: run in tmux, whose screen is kept as a picture."""

from __future__ import annotations

import os
import secrets
import shlex
import subprocess
import sys
from pathlib import Path

from tests.cluster.pods import await_value


def drawn(arguments: list[str], target: Path, *, kubeconfig: Path, namespace: str, columns: int, lines: int = 12) -> str:
    """Write the screen of `finetune ARGUMENTS` as TARGET.png once it shows a table; returns the text, with its colours."""
    session = f"finetune-{secrets.token_hex(4)}"
    command = shlex.join([sys.executable, "-m", "finetune_cli", *arguments, "-n", namespace])
    environment = {**os.environ, "KUBECONFIG": str(kubeconfig), "TERM": "xterm-256color"}
    server = ["tmux", "-L", session]
    subprocess.run(
        [*server, "-f", "/dev/null", "new-session", "-d", "-s", session, "-x", str(columns), "-y", str(lines), command],
        env=environment,
        check=True,
    )
    try:

        def screen() -> str | None:
            found = subprocess.run([*server, "capture-pane", "-e", "-p", "-t", session], capture_output=True, text=True, check=True).stdout
            return found if "NAME" in found else None

        text = await_value(screen, what=f"a table of {command}")
    finally:
        subprocess.run([*server, "kill-server"], check=False)
    _draw(text, target.with_suffix(".png"), columns, lines)
    return text


def _draw(text: str, target: Path, columns: int, lines: int) -> None:
    from matplotlib.figure import Figure
    from rich.console import Console
    from rich.terminal_theme import MONOKAI
    from rich.text import Text

    console, plain = Console(), Text.from_ansi(text)
    wide, high = 0.0925, 0.19
    figure = Figure(figsize=(columns * wide, lines * high), facecolor="#14171f")
    for row, line in enumerate(plain.split("\n", allow_blank=True)[:lines]):
        for column, letter in enumerate(line.plain):
            style = line.get_style_at_offset(console, column)
            colour = style.color.get_truecolor(MONOKAI).hex if style.color is not None and not style.color.is_default else "#d6d9e0"
            figure.text(
                (column + 0.1) / columns, 1 - (row + 0.8) / lines, letter, color=colour, fontsize=11, family="DejaVu Sans Mono",
                weight="bold" if style.bold else "normal",
            )  # fmt: skip
    figure.savefig(target, dpi=72)
