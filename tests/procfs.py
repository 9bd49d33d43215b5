"""What the kernel tells of a process's memory."""

from __future__ import annotations

from pathlib import Path


def memory(field: str, pid: int | str = "self") -> int:
    """KiB by a line of /proc/PID/status: `VmRSS` what is resident now, `VmHWM` the most that was; pages of mapped files count too.

    Raises FileNotFoundError or ProcessLookupError where the process is gone, and KeyError where it has no memory any more: it waits for its parent.
    """
    lines = (line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int({name: values for name, *values in lines}[f"{field}:"][0])
