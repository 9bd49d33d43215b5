"""`finetune`, and `python -m finetune_cli`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from finetune_cli.errors import CommandError
from finetune_cli.terminal import paint_for

INTERRUPTED = 130  # as shells have it: 128 + SIGINT


def main() -> None:
    """Run the command; an error is a sentence and a hint, never a traceback."""
    try:
        from finetune_cli.app import app  # here, so that a Ctrl-C while it is loaded shows no traceback

        app(prog_name=program(sys.argv[0]))
    except CommandError as error:
        paint = paint_for(sys.stderr)
        print(f"{paint('error:', 'red')} {error.message}", file=sys.stderr)
        if error.hint:
            print(f"  → {error.hint}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    finally:
        _settle()


def program(path: str) -> str:
    """What the user typed: `kubectl finetune` where kubectl found this as its plugin."""
    return "kubectl finetune" if Path(path).name.startswith("kubectl-finetune") else "finetune"


def _settle() -> None:
    """Write what is buffered. A reader that went away (`| head`, a closed terminal) changes no exit code."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if __name__ == "__main__":
    main()
