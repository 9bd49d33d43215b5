"""A cluster's end: whatever happens to whoever started it, nothing of it stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.demo_assets import ROOT
from tests.cluster import Cluster, ClusterError, Wanted, slots
from tests.cluster.pods import await_value
from tests.cluster.processes import Identity, Processes

OWNER = """
import sys, time
from pathlib import Path
from tests.cluster import Cluster, Wanted
Cluster.up(Path(sys.argv[1]), Wanted(kwok_nodes=0), say=lambda text: None)
print("up", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("with_guard", [False, True], ids=["the owner alone", "the owner and its guard"])
def test_a_killed_owner_s_cluster_is_taken_down(tmp_path: Path, with_guard: bool) -> None:
    folder = tmp_path / "cluster"
    command = [sys.executable, "-c", OWNER, str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "up\n"
        programs = Processes(folder)
        found = [identity for name in programs.names() if (identity := programs.identity(name))]
        assert len(found) >= 5
        if with_guard:
            os.kill(_guard_of(owner.pid), signal.SIGKILL)
        owner.kill()
    if with_guard:  # then it is the next cluster's start that cleans up
        with Cluster.up(tmp_path / "next", Wanted(kwok_nodes=0), say=lambda text: None):
            assert not any(identity.alive for identity in found)
    await_value(lambda: not any(identity.alive for identity in found), what="the end of every program", timeout=30)
    await_value(lambda: folder not in [held for _, held in slots.held()], what="its slot being free", timeout=30)
    assert [path.name for path in folder.iterdir()] == ["logs"]


def _guard_of(owner: int) -> int:
    """The process id of the guard among the owner's children."""
    children = Path(f"/proc/{owner}/task/{owner}/children").read_text().split()
    return next(int(pid) for pid in children if b"tests.cluster.guard" in Path(f"/proc/{pid}/cmdline").read_bytes())


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ClusterError, match="holds other files"):
        Cluster.up(tmp_path, Wanted(kwok_nodes=0))
    assert (tmp_path / "thesis.txt").exists()


def test_a_program_that_ends_at_once_is_told_with_its_log(tmp_path: Path) -> None:
    programs = Processes(tmp_path)
    programs.start("fails", ["/bin/sh", "-c", "echo no such flag; sleep 0.2; exit 3"])
    with pytest.raises(ClusterError, match=r"fails ended before readiness.*\n.*no such flag"):
        programs.wait("fails", lambda: False, what="readiness", timeout=10)


def test_a_number_that_another_process_got_is_not_signalled(tmp_path: Path) -> None:
    programs = Processes(tmp_path)
    identity = programs.start("sleeps", ["/bin/sleep", "600"])
    older = Identity(identity.pid, identity.started - 1)
    older.signal(signal.SIGKILL)
    assert not older.alive
    assert identity.alive
    programs.stop("sleeps")
    assert not identity.alive


def test_a_program_without_a_record_is_ended_too(tmp_path: Path) -> None:
    programs = Processes(tmp_path)
    identity = programs.start("sleeps", ["/bin/sleep", "600"])
    (tmp_path / "processes/sleeps.json").unlink()
    programs.kill_all()
    assert not identity.alive
