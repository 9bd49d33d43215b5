"""One request for all who ask at once, which is never older than the question."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Shared(Generic[T]):
    """Five hundred new jobs that ask for the runtimes at once cost a few lists, and each gets one that began after it asked."""

    def __init__(self, ask: Callable[[], Awaitable[T]]) -> None:
        self._ask = ask
        self._begun = 0
        self._answer: tuple[int, T] | None = None
        self._asking = asyncio.Lock()

    async def read(self) -> T:
        """Return an answer to a request that began after this call. Raises what asking raises."""
        before = self._begun
        async with self._asking:
            if self._answer is not None and self._answer[0] > before:
                return self._answer[1]
            self._begun += 1
            number = self._begun
            self._answer = number, await self._ask()
            return self._answer[1]
