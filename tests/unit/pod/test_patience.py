"""A process that can't stop in time ends by itself before the kubelet kills it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from finetune_trainer.checkpoint.signals import stop_on_signals
from finetune_trainer.patience import ends_in_time, patience


@pytest.fixture
def handled() -> Iterator[None]:
    with stop_on_signals():
        yield


@pytest.mark.parametrize(("grace", "seconds"), [(60, 54), (10, 8), (600, 540), (1, 0)])
def test_something_is_left_for_the_message(grace: float, seconds: float) -> None:
    assert patience(grace) == seconds


@pytest.mark.usefixtures("handled")
def test_a_block_that_goes_on_is_ended() -> None:
    ended = threading.Event()
    with ends_in_time(0, ended.set):
        signal.raise_signal(signal.SIGTERM)
        assert ended.wait(30)


@pytest.mark.usefixtures("handled")
@pytest.mark.parametrize("numbers", [[], [signal.SIGINT], [signal.SIGTERM]], ids=["no signal", "Ctrl-C", "a block that stops"])
def test_a_block_that_ends_is_let_be(numbers: list[int]) -> None:
    ended = threading.Event()
    before = set(threading.enumerate())
    with ExitStack() as stack:
        stack.enter_context(ends_in_time(60, ended.set))
        for number in numbers:
            signal.raise_signal(number)
    assert not ended.is_set()
    assert not set(threading.enumerate()) - before
    assert signal.set_wakeup_fd(-1) == -1
