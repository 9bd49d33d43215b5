"""Write docs/how-to/troubleshooting.md anew from what `kubectl describe` shows on a real API server: `python -m scripts.troubleshooting`."""

from __future__ import annotations

import os
import subprocess
import sys

from scripts.demo_assets import ROOT

TESTS = "tests/apiserver/test_trouble_page.py"


def main() -> int:
    """Returns the exit code of the tests that wrote it."""
    # Imported late: a script of the project knows the tests only here.
    from tests.apiserver.trouble_page import PAGE, REWRITE, frame
    from tests.apiserver.trouble_scenes import TROUBLES

    PAGE.write_text(frame([(trouble.name, trouble.title, trouble.do) for trouble in TROUBLES]))
    # One process: each test writes into the same file.
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", TESTS]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, REWRITE: "1"}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
