"""A bench that is ended early takes along what it has started."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from tests.bench.stopping import TERMINATED
from tests.cluster.pods import await_value

ROOT = Path(__file__).resolve().parents[2]
STARTS = """
import sys
from pathlib import Path
from contextlib import ExitStack
from tests.bench.stopping import end_in_order, run
end_in_order()
depth, folder = int(sys.argv[1]), Path(sys.argv[2])
with ExitStack() as stack:
    stack.callback((folder / f"over-{depth}").touch)
    (folder / f"began-{depth}").touch()
    run([sys.executable, "-c", sys.argv[3], str(depth - 1), str(folder), sys.argv[3]] if depth else ["sleep", "60"])
"""


def test_a_sigterm_ends_what_a_bench_has_started_in_order(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", STARTS, "1", str(tmp_path), STARTS], cwd=ROOT) as bench:
        try:
            await_value((tmp_path / "began-0").exists, what="the inner program", every=0.05)
            bench.send_signal(signal.SIGTERM)
            assert bench.wait(60) == TERMINATED
        finally:
            bench.kill()
    assert {path.name for path in tmp_path.glob("over-*")} == {"over-0", "over-1"}
