"""`python -m finetune_trainer prepare` as a process: what its user's machine lacks ends with a reason, never with a traceback."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from typing import Any

import pytest

from finetune_api.constants import Reason
from finetune_trainer.process import known_error

PREPARE = "mount -t tmpfs -o size=48k tmpfs {run} && {python} -m finetune_trainer prepare --config {config}; echo $?; cat {run}/result.json"


def test_a_full_disk_while_the_data_is_prepared(job: Any) -> None:
    """A tmpfs of 48 KiB in a mount namespace of its own. Needs root, or user namespaces."""
    config = job.folder / "config.json"
    config.write_text(
        job.config(job.file("a.jsonl", [{"text": f"word {n} " * 20} for n in range(2000)])).model_dump_json(exclude_none=True)
    )
    job.run.mkdir()
    root = [] if os.geteuid() == 0 else ["--map-root-user"]
    command = PREPARE.format(run=job.run, python=sys.executable, config=config)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(["unshare", "--mount", *root, "sh", "-c", command], capture_output=True, text=True, env=environment, check=False)
    code, _, result = done.stdout.partition("\n")
    assert code == "30", done.stderr
    document = json.loads(result)
    assert (document["reason"], document["message"]) == ("StorageFull", f"{job.run}: no space is left on the device")
    assert document["hint"].startswith("Free space in the run folder")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("error", "reason", "message"),
    [
        (OSError(errno.ENOSPC, "x"), Reason.STORAGE_FULL, "/run: no space is left on the device"),
        (OSError(errno.EDQUOT, "x", "/tmp/a"), Reason.STORAGE_FULL, "/tmp/a: no space is left on the device"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), Reason.STORAGE_FULL, "/run: no space is left on the device"),
        (
            PermissionError(errno.EACCES, "Permission denied", "/data/a.jsonl"),
            Reason.STORAGE_UNWRITABLE,
            "/data/a.jsonl: it can't be read or written by this user: Permission denied",
        ),
        (MemoryError(), Reason.OUT_OF_MEMORY, "the process ran out of memory"),
    ],
)
def test_what_a_machine_lacks_has_a_reason_and_a_place(error: Exception, reason: Reason, message: str) -> None:
    found = known_error(error, "/run")
    assert found is not None
    assert (found.reason, str(found)) == (reason, message)


def test_another_error_is_a_fault_of_the_trainer() -> None:
    assert known_error(KeyError("x"), "/run") is None
