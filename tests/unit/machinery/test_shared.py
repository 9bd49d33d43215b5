"""A shared request is never older than the question."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from finetune_operator.shared import Shared


def test_who_asks_at_once_shares_an_answer_that_began_after_the_question() -> None:
    async def story() -> None:
        world, asked, open_ = 0, 0, asyncio.Event()

        async def ask() -> int:
            nonlocal asked
            asked += 1
            seen = world
            await open_.wait()
            return seen

        shared = Shared(ask)
        first = asyncio.create_task(shared.read())
        await asyncio.sleep(0)
        world = 1  # the first request is on its way, and may not know
        later = [asyncio.create_task(shared.read()) for _ in range(20)]
        await asyncio.sleep(0)
        open_.set()
        assert await first == 0
        assert await asyncio.gather(*later) == [1] * 20
        assert asked == 2
        assert await shared.read() == 1
        assert asked == 3, "who asks afterwards asks anew"

    asyncio.run(story())


def test_a_failure_is_told_to_who_asked_and_the_next_asks_anew() -> None:
    async def story() -> None:
        answers: Iterator[OSError | int] = iter([OSError("away"), 7])

        async def ask() -> int:
            await asyncio.sleep(0)
            if isinstance(answer := next(answers), OSError):
                raise answer
            return answer

        shared = Shared(ask)
        first, second = asyncio.create_task(shared.read()), asyncio.create_task(shared.read())
        with pytest.raises(OSError, match="away"):
            await first
        assert await second == 7

    asyncio.run(story())
