"""`python -m finetune_trainer prepare|train|evaluate --config FILE`: runs one segment of a job, and ends with a documented exit code.
`report --config FILE --page N` tells a page of the result that a pod's last message could not hold; `read --config FILE --slice N` prints
a slice of what a user asked for of a job that has ended.

Signals are answered before anything else is imported: in a container this is process 1, for which the kernel drops a SIGTERM that has no
handler, and the grace period would pass unused.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from finetune_trainer.checkpoint.signals import stop_on_signals


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    with stop_on_signals() as stop:
        from finetune_trainer.process import run_process

        return run_process(sys.argv[1:] if arguments is None else arguments, stop)


if __name__ == "__main__":
    sys.exit(main())
