"""What the other commands do with a client: ask, print, and end with an exit code."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TextIO

from finetune_api.constants import ConditionType, ExitCode
from finetune_api.problem import nearest
from finetune_cli.cluster.documents import name_of, printed
from finetune_cli.cluster.session import Target, command_error, converse
from finetune_cli.cluster.words import safe_line, seconds_of
from finetune_cli.errors import ClusterExit, CommandError
from finetune_cli.terminal import paint_for

if TYPE_CHECKING:
    from finetune_client import AsyncClient, Job


def get(target: Target, names: Sequence[str], *, everywhere: bool, labels: str, output: str, stdout: TextIO = sys.stdout) -> None:
    """Print jobs: those that are named, else all of the namespace, or of all."""
    from finetune_cli.cluster.rows import table

    async def work(client: AsyncClient) -> tuple[list[Job], str]:
        if names:
            return [await client.get(name) for name in names], ""
        return await client.list(all_namespaces=everywhere, labels=labels), await client.namespace()

    if names and (everywhere or labels):
        raise CommandError("names and -A or -l don't go together", hint="Give names and -n, or -A and -l.", exit_code=2)
    jobs, namespace = converse(target, work)
    if output in ("json", "yaml", "name"):
        text = printed([job.manifest for job in jobs], output, single=len(names) == 1)
        print(text, file=stdout, end="\n" if text else "")
    elif jobs:
        print(table(jobs, now=datetime.now(UTC), wide=output == "wide", namespaces=everywhere, width=_width(stdout)), file=stdout)
    else:
        where = "in any namespace" if everywhere else f"in the namespace {namespace}"
        print(f"There are no jobs {where}{f' with the labels {labels}' if labels else ''}.", file=sys.stderr)


def describe(target: Target, names: Sequence[str], *, stdout: TextIO = sys.stdout) -> None:
    """Print the story of each job."""
    from finetune_cli.cluster.story import story

    async def work(client: AsyncClient) -> list[str]:
        from finetune_client import Forbidden

        told = []
        for name in names:
            job = await client.get(name)
            try:
                events = await client.events(job)
            except Forbidden as error:
                events = ()
                print(f"{paint_for(sys.stderr)('note:', 'blue')} without its events: {error.message}", file=sys.stderr)
            told.append(story(job, events, now=datetime.now(UTC), paint=paint_for(stdout)))
        return told

    print("\n\n".join(converse(target, work)), file=stdout)


def watch(target: Target, names: Sequence[str], *, everywhere: bool, labels: str, lines: bool, stdout: TextIO = sys.stdout) -> int:
    """Show jobs as they go. Returns the exit code: those that are named have ended; without names it goes on until Ctrl-C."""
    from finetune_cli.cluster.board import board_for
    from finetune_cli.cluster.follow import follow, follow_all

    if names and (everywhere or labels):
        raise CommandError("names and -A or -l don't go together", hint="Give names and -n, or -A and -l.", exit_code=2)
    board = board_for(stdout, lambda: datetime.now(UTC), namespaces=everywhere, lines=lines)

    async def work(client: AsyncClient) -> list[Job]:
        if names:
            return await follow(client, [(None, name) for name in dict.fromkeys(names)], board)
        await follow_all(client, board, all_namespaces=everywhere, labels=labels)
        return []

    ended = converse(target, work)
    return ExitCode.SUCCESS if all(job.succeeded for job in ended) else ClusterExit.JOB_FAILED


def wait(target: Target, names: Sequence[str], *, condition: str, timeout: str | None, quiet: bool, stderr: TextIO = sys.stderr) -> None:
    """Wait until a condition is True of each job. Raises CommandError with the exit code of what came instead."""
    import asyncio

    from finetune_cli.cluster.board import Lines
    from finetune_cli.cluster.follow import first_error

    kind = condition_of(condition)
    seconds = seconds_of(timeout) if timeout is not None else None
    if timeout is not None and seconds is None:
        raise CommandError(f"--timeout {timeout}: this is no duration", hint="Write 90s, 10m, 1h30m or 2d.", exit_code=2)
    board = Lines(stderr, lambda: datetime.now(UTC))

    async def one(client: AsyncClient, name: str) -> Job:
        return await client.wait(
            name,
            kind,
            timeout=seconds,
            seen=(lambda job: None) if quiet else board.show,
            trouble=lambda error: board.note(f"{error.message}; trying again" if error else ""),
        )

    async def work(client: AsyncClient) -> None:
        async def all_of_them() -> None:
            async with asyncio.TaskGroup() as group:
                for name in dict.fromkeys(names):
                    group.create_task(one(client, name))

        await first_error(all_of_them())

    converse(target, work)


def condition_of(text: str) -> str:
    """The condition that is meant, however it is spelt; kubectl's `condition=Complete` too. Raises CommandError."""
    word = text.removeprefix("condition=")
    found = {kind.value.lower(): kind.value for kind in ConditionType}.get(word.lower())
    if found is None:
        near = nearest(word, [kind.value for kind in ConditionType])
        among = ", ".join(kind.value for kind in ConditionType)
        raise CommandError(
            f"--for {text}: there is no such condition",
            hint=f"Did you mean {near}?" if near else f"The conditions are {among}.",
            exit_code=2,
        )
    return found


def logs(target: Target, name: str, *, follow: bool, every: bool, tail: int | None, timestamps: bool, stdout: TextIO = sys.stdout) -> None:
    """Print what the pods of a job wrote; where several wrote, a heading on standard error says which. Without a pod, its logs on the volume."""

    async def work(client: AsyncClient) -> None:
        from finetune_cli.cluster.fetching import print_logs
        from finetune_client import NotFound

        try:
            told = await from_pods(client)
        except NotFound:
            told = False
            if not (await client.get(name)).finished:
                raise
        if not told:
            await print_logs(client, name, every=every, tail=tail, stdout=stdout, stderr=sys.stderr)

    async def from_pods(client: AsyncClient) -> bool:
        """Whether there was a pod; raises NotFound where there is none, and nobody follows."""
        source: tuple[str, str] | None = None
        async with aclosing(client.logs(name, follow=follow, every=every, tail=tail)) as lines:
            async for line in lines:
                if source != (line.pod, line.container):
                    source = (line.pod, line.container)
                    attempt = f", attempt {line.attempt}" if line.attempt is not None else ""
                    print(f"==> {line.pod}, {line.container}{attempt} <==", file=sys.stderr, flush=True)
                stamp = f"{line.at:%Y-%m-%dT%H:%M:%SZ} " if timestamps and line.at is not None else ""
                print(f"{stamp}{safe_line(line.text)}", file=stdout, flush=True)
        return source is not None or not follow

    converse(target, work)


def each(
    target: Target, names: Sequence[str], act: Callable[[AsyncClient, str], Awaitable[str]], *, output: str, stdout: TextIO = sys.stdout
) -> int:
    """Do something to each job, and say what came of it. What fails is said, the others are tried; the first error is the exit code."""

    async def work(client: AsyncClient) -> int:
        from finetune_client import ClientError

        code = 0
        for name in dict.fromkeys(names):
            try:
                said = await act(client, name)
            except ClientError as error:
                found = command_error(error)
                print(f"{paint_for(sys.stderr)('error:', 'red')} {found.message}", file=sys.stderr)
                if found.hint:
                    print(f"  → {found.hint}", file=sys.stderr)
                code = code or found.exit_code
                continue
            kind = name_of({"kind": "FineTuneJob", "metadata": {"name": name}})
            print(kind if output == "name" else f"{kind} {said}", file=stdout, flush=True)
        return code

    return converse(target, work)


async def suspend(client: AsyncClient, name: str) -> str:
    job = await client.suspend(name)
    return "has ended: there is nothing to suspend" if job.finished else "is being suspended: it saves, and gives its GPUs back"


async def resume(client: AsyncClient, name: str) -> str:
    job = await client.resume(name)
    return "has ended: there is nothing to resume" if job.finished else "goes on"


async def delete(client: AsyncClient, name: str) -> str:
    await client.delete(name)
    return "deleted"


def cancel(timeout: float) -> Callable[[AsyncClient, str], Awaitable[str]]:
    """timeout: seconds to wait until nothing of it runs."""

    async def act(client: AsyncClient, name: str) -> str:
        job = await client.cancel(name, timeout=timeout)
        if job.finished:
            return f"has ended already: {job.phase}"
        return "cancelled: saved, and nothing of it runs any more (finetune resume goes on with it, finetune delete removes it)"

    return act


def _width(stream: TextIO) -> int | None:
    """Columns of a terminal; None for a file or a pipe, which cut nothing."""
    import shutil

    return shutil.get_terminal_size().columns if stream.isatty() else None
