"""The second try of tests with real programs: `python -m tests.again PYTEST-ARGUMENT …` runs pytest, and what failed once more, alone.

A control plane, a scheduler, kubelets and an operator share two cores with whatever else the machine does, and each has time limits of its own.
So at most three tests of those tiers that failed get a second try in new processes, one after the other, with nothing beside them. Nothing is
hidden: the first failure stays on the screen in full, and the last line names each test that needed two tries. Tests without a cluster get
no second try, exact resume least of all. See docs/decisions/0021-second-try.md.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
FAILED: Final = ROOT / ".pytest_cache/v/cache/lastfailed"
TIERS: Final = ("tests/apiserver/", "tests/failures/", "tests/gitops/", "tests/monitoring/", "tests/node/")
MOST: Final = 3
SOME_FAILED: Final = 1
"""pytest's exit code for it; any other one is of something else: interrupted, an error of its own, no tests."""

Run = Callable[[Sequence[str]], int]


def again(arguments: Sequence[str], run: Run, failed: Callable[[], list[str]]) -> int:
    """Run pytest with these arguments, and again what may be tried again. failed: the ids of the tests that failed. Returns the exit code."""
    code = run(arguments)
    if code != SOME_FAILED:
        return code
    names = failed()
    settled = [name for name in names if not name.startswith(TIERS)]
    if settled or not 0 < len(names) <= MOST:
        return code
    print(f"\nOnce more, alone: {' '.join(names)}", flush=True)
    second = run(["-p", "no:cacheprovider", *names])
    word = "PASSED AT THE SECOND TRY, look into the first" if second == 0 else "FAILED TWICE"
    print(f"\n{word}: {' '.join(names)}", flush=True)
    return second


def last_failed() -> list[str]:
    """What pytest wrote down; a whole file where it could not be collected."""
    return sorted(json.loads(FAILED.read_text())) if FAILED.exists() else []


def main(arguments: Sequence[str]) -> int:
    FAILED.unlink(missing_ok=True)  # or a test that failed yesterday, and was not run now, would count
    return again(
        arguments, lambda more: subprocess.run([sys.executable, "-m", "pytest", *more], cwd=ROOT, check=False).returncode, last_failed
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
