"""The queue's semantics, one sentence a test, on a clock that only the test moves."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from finetune_operator.workqueue import Backoff, Lane, WorkQueue


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


def queue(clock: Clock | None = None) -> WorkQueue[str]:
    return WorkQueue(clock=clock or Clock(), backoff=Backoff(first=1.0, most=8.0))


def drain(work: WorkQueue[str]) -> list[str]:
    keys = []
    while (key := work.pop()) is not None:
        keys.append(key)
        work.done(key)
    return keys


def test_a_key_added_often_is_worked_on_once() -> None:
    work = queue()
    for _ in range(5):
        work.add("a")
    assert len(work) == 1
    assert drain(work) == ["a"]


def test_keys_come_in_the_order_of_their_adding() -> None:
    work = queue()
    for key in "bca":
        work.add(key)
    assert drain(work) == ["b", "c", "a"]


def test_no_key_is_worked_on_twice_at_once() -> None:
    work = queue()
    work.add("a")
    assert work.pop() == "a"
    work.add("a")
    assert work.pop() is None


def test_a_key_added_while_worked_on_comes_back_once() -> None:
    work = queue()
    work.add("a")
    work.pop()
    for _ in range(3):
        work.add("a")
    work.done("a")
    assert drain(work) == ["a"]


def test_what_runs_and_what_is_new_take_turns() -> None:
    work = queue()
    for key in ("new-1", "new-2"):
        work.add(key, Lane.NEW)
    for key in ("running-1", "running-2", "running-3", "running-4"):
        work.add(key, Lane.RUNNING)
    assert drain(work) == ["running-1", "new-1", "running-2", "new-2", "running-3", "running-4"]


def test_a_lane_that_was_empty_has_lost_no_turn_and_saved_none() -> None:
    work = queue()
    for key in ("new-1", "new-2", "new-3"):
        work.add(key, Lane.NEW)
    assert [work.pop(), work.pop()] == ["new-1", "new-2"]
    for key in ("running-1", "running-2"):
        work.add(key, Lane.RUNNING)
    assert drain(work) == ["running-1", "new-3", "running-2"]


def test_an_event_of_a_child_moves_a_new_key_ahead() -> None:
    work = queue()
    for key in ("new", "child-moved"):
        work.add(key, Lane.NEW)
    work.add("child-moved", Lane.RUNNING)
    assert drain(work) == ["child-moved", "new"]


def test_a_running_key_is_not_moved_back() -> None:
    work = queue()
    work.add("first", Lane.RUNNING)
    work.add("first", Lane.NEW)
    work.add("second", Lane.NEW)
    assert drain(work) == ["first", "second"]


def test_a_dirty_key_comes_back_in_the_lane_that_goes_first() -> None:
    work = queue()
    work.add("a")
    work.pop()
    work.add("a", Lane.RUNNING)
    work.add("a", Lane.NEW)
    work.add("b", Lane.NEW)
    work.done("a")
    assert drain(work) == ["a", "b"]


def test_a_delayed_key_comes_when_it_is_due() -> None:
    clock = Clock()
    work = queue(clock)
    work.add_after("a", 5)
    clock.now += 4.9
    assert work.pop() is None
    clock.now += 0.1
    assert work.pop() == "a"


@pytest.mark.parametrize("delays", [(5, 50), (50, 5)], ids=["later second", "earlier second"])
def test_of_two_delays_the_earlier_counts_and_the_other_is_forgotten(delays: tuple[float, float]) -> None:
    clock = Clock()
    work = queue(clock)
    for delay in delays:
        work.add_after("a", delay)
    clock.now += 5
    assert drain(work) == ["a"]
    clock.now += 100
    assert drain(work) == []


def test_an_event_does_not_wait_for_the_delay() -> None:
    work = queue()
    work.add_after("a", 1000)
    work.add("a")
    assert drain(work) == ["a"]


def test_each_failure_doubles_the_delay_of_that_key_up_to_the_most() -> None:
    work = queue()
    assert [work.retry("a") for _ in range(5)] == [1, 2, 4, 8, 8]
    assert work.retry("b") == 1


def test_a_success_starts_the_back_off_anew() -> None:
    work = queue()
    work.retry("a")
    work.retry("a")
    work.forget("a")
    assert work.retry("a") == 1


def test_a_hundred_failures_do_not_overflow() -> None:
    work = queue()
    assert [work.retry("a") for _ in range(2000)][-1] == 8


def test_a_key_that_fails_while_dirty_comes_back_now_and_not_twice() -> None:
    clock = Clock()
    work = queue(clock)
    work.add("a")
    work.pop()
    work.add("a")
    work.retry("a")
    work.done("a")
    assert drain(work) == ["a"]


def test_the_oldest_waits_from_its_first_adding() -> None:
    clock = Clock()
    work = queue(clock)
    assert work.oldest() == 0
    work.add("a", Lane.NEW)
    clock.now += 7
    work.add("a", Lane.RUNNING)
    assert work.oldest() == 7


def test_how_long_a_key_had_waited_is_known_while_it_is_worked_on() -> None:
    clock = Clock()
    work = queue(clock)
    work.add("a")
    clock.now += 3
    assert work.pop() == "a"
    assert work.waited("a") == 3
    work.add("a")
    clock.now += 5
    work.done("a")
    assert work.oldest() == 5, "it has waited since it was added, not since the worker was done"
    assert work.pop() == "a"
    assert work.waited("a") == 5


def test_what_waits_for_its_time_is_counted_apart() -> None:
    work = queue(clock := Clock())
    work.add("now")
    work.add_after("later", 5)
    work.add_after("later", 2)
    assert (len(work), work.delayed()) == (1, 1)
    clock.now += 2
    drain(work)
    assert work.delayed() == 0


def test_get_waits_for_a_key_and_for_a_delay() -> None:
    async def scene() -> list[str | None]:
        work: WorkQueue[str] = WorkQueue(clock=asyncio.get_running_loop().time)
        waiting = asyncio.create_task(work.get())
        await asyncio.sleep(0)
        work.add("now")
        first = await waiting
        work.add_after("soon", 0.02)
        return [first, await work.get()]

    assert asyncio.run(scene()) == ["now", "soon"]


def test_an_earlier_delay_wakes_who_waits_for_a_later_one() -> None:
    async def scene() -> str | None:
        work: WorkQueue[str] = WorkQueue(clock=asyncio.get_running_loop().time)
        work.add_after("late", 3600)
        waiting = asyncio.create_task(work.get())
        await asyncio.sleep(0)
        work.add_after("soon", 0.02)
        return await waiting

    assert asyncio.run(scene()) == "soon"


def test_many_workers_share_the_keys() -> None:
    async def scene() -> list[str]:
        work: WorkQueue[str] = WorkQueue(clock=asyncio.get_running_loop().time)
        seen: list[str] = []

        async def worker() -> None:
            while (key := await work.get()) is not None:
                seen.append(key)
                await asyncio.sleep(0)
                work.done(key)
                if len(seen) == 20:
                    work.close()

        workers = [asyncio.create_task(worker()) for _ in range(4)]
        await asyncio.sleep(0)
        for number in range(20):
            work.add(str(number))
        await asyncio.gather(*workers)
        return seen

    assert sorted(asyncio.run(scene()), key=int) == [str(number) for number in range(20)]


def test_a_closed_queue_ends_every_get_and_takes_nothing() -> None:
    async def scene() -> tuple[str | None, int]:
        work = queue()
        waiting = asyncio.create_task(work.get())
        await asyncio.sleep(0)
        work.close()
        work.add("a")
        return await waiting, len(work)

    assert asyncio.run(scene()) == (None, 0)
