"""Trainer processes that start at once: forked from one that has loaded the libraries, since importing them takes longer than all else.

`python -m tests.failures.server SOCKET` listens; `stub.py` is the command that `finetune run` starts in the trainer's place. It hands over its
output, its progress pipe, its environment and its process group, passes SIGTERM on, and ends as the trainer does.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from tests.examples.trainer_process import PRELOADED

PROGRESS_FD = "FINETUNE_PROGRESS_FD"


def serve(path: str) -> None:
    """Listen until killed. Each request has a process of its own, and its trainer another."""
    for name in PRELOADED:
        importlib.import_module(name)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen(8)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that answer
        while True:
            connection, _ = listening.accept()
            if os.fork() == 0:
                listening.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                _answer(connection)
                os._exit(0)
            connection.close()


def _answer(connection: socket.socket) -> None:
    data, descriptors, _, _ = socket.recv_fds(connection, 65536, 3)
    length, data = int(data[:8]), data[8:]
    while len(data) < length:
        data += connection.recv(65536)
    asked = json.loads(data)
    child = os.fork()
    if child == 0:
        connection.close()
        _train(asked, descriptors)
    connection.sendall(f"{child}\n".encode())
    for descriptor in descriptors:
        os.close(descriptor)
    _, status = os.waitpid(child, 0)
    connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())


def _train(asked: dict[str, Any], descriptors: list[int]) -> None:
    os.setpgid(0, asked["group"])
    out, err, progress = descriptors
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.set_inheritable(progress, True)
    os.environ.clear()
    os.environ.update({**asked["environment"], PROGRESS_FD: str(progress)})
    os.chdir(asked["folder"])
    if asked["memory"] is not None:
        room = _size() + asked["memory"]
        resource.setrlimit(resource.RLIMIT_AS, (room, room))
    from finetune_trainer.__main__ import main

    code = 1
    try:
        code = main(asked["arguments"])
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _size() -> int:
    """Bytes of address space that this process has already: mostly code of libraries."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


if __name__ == "__main__":
    serve(sys.argv[1])
