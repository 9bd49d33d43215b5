"""`python -m tests.cluster.guard FOLDER`: waits for the end of its standard input, then takes the cluster down, unless it was released."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.cluster.keeper import RELEASED
from tests.cluster.slots import State
from tests.cluster.teardown import take_down


def main(folder: Path) -> None:
    if sys.stdin.buffer.read() != RELEASED and (state := State.read(folder)):
        take_down(folder, state.slot)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
