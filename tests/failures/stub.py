"""Stands where the trainer's command stands: see server.py. Starts without site-packages, in a blink.

SOCKET [--memory BYTES] ARGUMENTS...
"""

import json
import os
import signal
import socket
import sys


def main() -> int:
    path, *arguments = sys.argv[1:]
    memory = None
    if arguments[0] == "--memory":
        memory, arguments = int(arguments[1]), arguments[2:]
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        asked = {
            "arguments": arguments,
            "environment": dict(os.environ),
            "folder": os.getcwd(),  # noqa: PTH109 - pathlib takes longer to import than all else here
            "group": os.getpgrp(),
            "memory": memory,
        }
        data = json.dumps(asked).encode()
        socket.send_fds(connection, [f"{len(data):08}".encode()], [1, 2, int(os.environ["FINETUNE_PROGRESS_FD"])])
        connection.sendall(data)
        with connection.makefile() as answers:
            child = int(answers.readline())
            signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGTERM))
            code = int(answers.readline())
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


if __name__ == "__main__":
    sys.exit(main())
