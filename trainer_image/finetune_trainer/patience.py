"""What a process does that was told to stop and can't: it ends by itself, with a message, before the kubelet's patience does.

A killed process has exit code 137 and tells nothing. This one says 75, so its pod is replaced without a charge; the last commit is whole
either way. Signals come in on a descriptor, since their handlers wait for the main thread to come back from whatever it is in.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

SHARE: Final = 0.1
LEAST_SECONDS: Final = 2.0


def patience(grace_seconds: float) -> float:
    """Seconds from the signal to the end: a tenth of the grace period, two seconds at least, is left for the message."""
    return max(0.0, grace_seconds - max(LEAST_SECONDS, SHARE * grace_seconds))


@contextmanager
def ends_in_time(seconds: float, end: Callable[[], None]) -> Iterator[None]:
    """Call `end`, from another thread, where the block still runs `seconds` after the first SIGTERM. Main thread only."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    over = threading.Event()

    def watch() -> None:
        while data := os.read(reading, 64):
            if signal.SIGTERM in data:
                if not over.wait(seconds):
                    end()
                return

    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    watcher = threading.Thread(target=watch, name="patience", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        signal.set_wakeup_fd(before)
        os.close(writing)
        watcher.join()
        os.close(reading)
