"""Jobs as they go, on a board: until all that were named have ended, or for ever."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

from finetune_cli.cluster.board import Board
from finetune_cli.cluster.words import one_line

if TYPE_CHECKING:
    from finetune_client import AsyncClient, ClientError, Job

T = TypeVar("T")
TICK_SECONDS = 0.25


async def follow(client: AsyncClient, named: Sequence[tuple[str | None, str]], board: Board) -> list[Job]:
    """Show these jobs (namespace and name) until all have ended. Returns how they ended.

    Raises:
        NotFound: One is not there, or was deleted.
    """

    async def all_of_them() -> list[Job]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_until_ended(client, namespace, name, board)) for namespace, name in named]
        return [task.result() for task in tasks]

    async with _ticking(board):
        return await first_error(all_of_them())


async def follow_all(client: AsyncClient, board: Board, *, all_namespaces: bool, labels: str) -> None:
    """Show all jobs of a namespace, or of all, until somebody ends the command."""
    async with (
        _ticking(board),
        aclosing(client.watch(all_namespaces=all_namespaces, labels=labels, trouble=_teller(board))) as changes,
    ):
        async for change in changes:
            if change is None:
                board.complete()
            elif change.kind == "deleted":
                board.gone(change.job)
            else:
                board.show(change.job)


async def first_error(work: Awaitable[T]) -> T:
    """What a group of tasks came to; where some failed, the first error by itself."""
    try:
        return await work
    except ExceptionGroup as group:
        first: BaseException = group
        while isinstance(first, ExceptionGroup):
            first = first.exceptions[0]
        raise first from None


async def _until_ended(client: AsyncClient, namespace: str | None, name: str, board: Board) -> Job:
    last: Job | None = None
    async with aclosing(client.stream(name, namespace=namespace, trouble=_teller(board))) as states:
        async for job in states:
            last = job
            board.show(job)
    assert last is not None
    return last


@asynccontextmanager
async def _ticking(board: Board) -> AsyncIterator[None]:
    """Draw again and again, and once more at the end."""

    async def tick() -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            board.tick()

    task = asyncio.create_task(tick())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        board.close()


def _teller(board: Board) -> Callable[[ClientError | None], None]:
    def tell(error: ClientError | None) -> None:
        board.note(f"{one_line(error.message)}; trying again" if error is not None else "")

    return tell
