"""One live process a run folder: an exclusive lock that the kernel drops when its holder dies, however it dies."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from finetune_api.constants import Reason
from finetune_api.refusals import holder
from finetune_trainer.checkpoint.files import storage_error
from finetune_trainer.errors import TrainerError


@contextmanager
def hold(path: Path, *, fenced: bool = False) -> Iterator[bool]:
    """Hold the lock file for the length of the block. Raises TrainerError(RunFolderBusy) that names the holder.

    The lock keeps two processes of one machine apart. Where a volume does not carry locks between machines, the epochs do. `fenced`: in a
    pod the holder can only be what a lost node still runs, and waiting for it would be waiting for ever, so the epochs do it there too.
    Gives whether the lock is held.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise storage_error(error, "open", path) from error
    try:
        held = _lock(descriptor)
        if not held and not fenced:
            raise TrainerError(
                Reason.RUN_FOLDER_BUSY, f"another live run uses this folder{holder(os.pread(descriptor, 4096, 0))}", where=str(path.parent)
            )
        if held:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": int(time.time())}).encode(), 0)
        yield held
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
