"""A full disk during a save: the reason and the path are named, nothing committed is harmed, and with space again the save goes through."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from finetune_api.constants import ExitCode, Reason
from finetune_trainer.checkpoint.epochs import Epoch
from finetune_trainer.errors import TrainerError
from tests.unit.checkpoint.runs import STAGE, FullLayer, begin, run_in, snapshot, store_of

ON_A_SMALL_DISK = """
import os, sys, torch
from pathlib import Path
from finetune_trainer.checkpoint.lineage import chain, head, newest_valid
from finetune_trainer.checkpoint.snapshot import Snapshot
from finetune_trainer.errors import TrainerError
from tests.unit.checkpoint.runs import STAGE, begin, run_in, store_of

disk = Path(sys.argv[1])
run = run_in(disk)
store = store_of(begin(run), keep=1, asynchronous=sys.argv[2] == "asynchronous")
newest = lambda: newest_valid(chain(run.epochs, head(run.epochs))).newest.step
big = lambda step: Snapshot({"weights": {"a": torch.full((200, 1024), float(step))}}, {"trainer_state": {"step": step}})
store.commit(STAGE, 1, big(1))
store.wait()
ballast = disk / "ballast"
for left in (0, 1, 50, 199, 201, 202):       # pages: the weights take 201, the other files one each
    free = os.statvfs(disk)
    ballast.write_bytes(b"x" * free.f_frsize * (free.f_bavail - left))
    try:
        store.commit(STAGE, 2, big(2))
        store.wait()
    except TrainerError as error:
        print(error.reason, error.exit_code.value, error)
    assert newest() == 1 and not list(run.root.rglob(".writing-*"))
    ballast.unlink()
store.commit(STAGE, 2, big(2))
store.wait()
print("went on from", newest())
"""


@pytest.mark.parametrize("how", ["plain", "asynchronous"])
def test_a_save_on_a_real_file_system_without_space(tmp_path: Path, how: str) -> None:
    """A tmpfs of 2 MiB in a mount namespace of its own. Needs root, or user namespaces; without either it fails: it must not be skipped."""
    script = tmp_path / "script.py"
    script.write_text(ON_A_SMALL_DISK)
    disk = tmp_path / "disk"
    disk.mkdir()
    command = f"mount -t tmpfs -o size=2m tmpfs {disk} && exec {sys.executable} {script} {disk} {how}"
    root = [] if os.geteuid() == 0 else ["--map-root-user"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(["unshare", "--mount", *root, "sh", "-ec", command], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == "went on from 2"
    assert len(lines) == 7 and all(line.startswith("StorageFull 30 ") and "no space left: write failed" in line for line in lines[:-1]), (
        lines
    )
    assert {Path(line.split(":")[0]).name for line in lines[:-1]} == {"weights.safetensors", "trainer_state.json", "MANIFEST.json"}


@pytest.mark.parametrize("asynchronous", [False, True], ids=["plain", "asynchronous"])
def test_no_space_at_any_single_operation(memory_folder: Path, asynchronous: bool) -> None:
    at = 0
    while True:
        folder = memory_folder / str(at)
        run = run_in(folder)
        store_of(begin(run), keep=1).commit(STAGE, 10, snapshot(10))
        epoch = begin(run)
        layer = FullLayer(at)
        store = store_of(
            Epoch(**{**vars(epoch), "files": layer, "journal": type(epoch.journal)(run.journal, layer)}), keep=1, asynchronous=asynchronous
        )
        try:
            store.commit(STAGE, 20, snapshot(20))
            store.wait()
            failed = False
        except TrainerError as error:
            assert error.reason is Reason.STORAGE_FULL and error.exit_code is ExitCode.STORAGE == 30
            assert str(run.root) in str(error)
            failed = True
        after = begin(run)
        assert after.start is not None and after.rejected == []
        assert failed or after.start.step == 20
        shutil.rmtree(folder)
        if len(layer.operations) <= at:
            break
        at += 1
    assert at > 30


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        ("EROFS", Reason.STORAGE_UNWRITABLE),
        ("EACCES", Reason.STORAGE_UNWRITABLE),
        ("EIO", Reason.STORAGE_UNWRITABLE),
        ("EDQUOT", Reason.STORAGE_FULL),
    ],
)
def test_what_else_a_storage_refuses_has_a_reason_too(number: str, reason: Reason) -> None:
    import errno

    from finetune_trainer.checkpoint.files import storage_error

    error = storage_error(OSError(getattr(errno, number), "x"), "open", Path("/run/epochs"))
    assert isinstance(error, TrainerError) and error.reason is reason and error.exit_code == 30
    assert str(error).startswith("/run/epochs: ")
