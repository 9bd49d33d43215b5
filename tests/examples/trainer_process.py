"""Trainer processes for the examples: forked from a server that has the libraries loaded already, since importing them takes ten seconds."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

PRELOADED = [
    "torch",
    "transformers",
    "transformers.trainer",
    "peft",
    "finetune_trainer.recipe",
    "finetune_trainer.data.prepare",
    "finetune_trainer.report.html",
]


def server() -> ForkServerContext:
    """The fork server of this test process; it starts with the first process that is asked of it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def in_process(work: Callable[..., Any], *arguments: Any, log: Path) -> int:
    """Run `work(*arguments)` in a process of its own with its output in `log`; return its exit code (what it returned, where that is a number)."""
    process = server().Process(target=_call, args=(work, arguments, log))
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def train(command: str, config: Path) -> int:
    """What `python -m finetune_trainer COMMAND --config CONFIG` does."""
    from finetune_trainer.__main__ import main

    return main([command, "--config", str(config)])


def _call(work: Callable[..., Any], arguments: tuple[Any, ...], log: Path) -> None:
    with log.open("a", buffering=1) as out:
        sys.stdout = sys.stderr = out
        code = work(*arguments)
    sys.exit(code if isinstance(code, int) else 0)
