"""What every test of the command line stands on."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def hears_ctrl_c() -> Iterator[None]:
    """Let SIGINT be heard: the shell has what is started behind it ignore it, and the command then ignores it too, as it should."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
