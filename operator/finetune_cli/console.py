"""rich's console as this command wants it. Imports rich: only what draws tables and bars imports this."""

from __future__ import annotations

import os
from typing import NoReturn, TextIO

from rich.console import Console as RichConsole

from finetune_cli.terminal import coloured_stream

_PLAIN_WIDTH = 110


class Console(RichConsole):
    """Text as it is (no markup, no emoji), colour by NO_COLOR, wide enough for tables where it is no terminal."""

    def __init__(self, stream: TextIO) -> None:
        width = None if stream.isatty() or "COLUMNS" in os.environ else _PLAIN_WIDTH
        super().__init__(file=stream, no_color=not coloured_stream(stream), highlight=False, width=width, markup=False, emoji=False)

    def on_broken_pipe(self) -> NoReturn:
        """An OSError like any other; rich would end the process here."""
        raise BrokenPipeError
