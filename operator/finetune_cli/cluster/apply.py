"""`finetune apply`: every manifest is checked here first, with its lines, and nothing is sent while one of them is wrong."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

from finetune_api.constants import KIND, ExitCode
from finetune_cli.cluster.documents import name_of, printed
from finetune_cli.cluster.session import Target, command_error, converse
from finetune_cli.errors import ClusterExit, CommandError
from finetune_cli.manifests import Checked
from finetune_cli.terminal import paint_for
from finetune_cli.validate import check_all, render

if TYPE_CHECKING:
    from pydantic import BaseModel

    from finetune_client import AsyncClient


@dataclass(frozen=True)
class Options:
    force: bool = False
    dry_run: bool = False
    wait: bool = False
    output: str = "text"


@dataclass(frozen=True)
class Streams:
    stdin: BinaryIO
    stdout: TextIO
    stderr: TextIO


def apply(target: Target, files: Sequence[str], options: Options, streams: Streams | None = None) -> int:
    """Apply what is in these files: runtimes before the jobs that may name them. Returns the exit code."""
    streams = streams or Streams(sys.stdin.buffer, sys.stdout, sys.stderr)
    manifests = load(files, streams)
    refuse_other_namespaces(manifests, target.namespace)
    return converse(target, lambda client: _apply(client, manifests, options, streams))


def load(files: Sequence[str], streams: Streams) -> list[dict[str, Any]]:
    """The manifests of the files as their authors wrote them, without what was left out.

    Raises:
        CommandError: One of them is wrong; what was found has been printed.
    """
    checked = check_all(files, streams.stdin)
    paint = paint_for(streams.stderr)
    for one in checked:
        for finding in one.findings:
            print(render(finding, paint), file=streams.stderr)
    wrong = sum(one.errors for one in checked)
    if wrong:
        raise CommandError(
            f"{wrong} {'problem' if wrong == 1 else 'problems'} in {_names(checked)}: nothing was applied", exit_code=ExitCode.BAD_CONFIG
        )
    models: list[BaseModel] = [*(runtime for one in checked for runtime in one.runtimes), *(job for one in checked for job in one.jobs)]
    return [model.model_dump(mode="json", exclude_unset=True) for model in models]


def refuse_other_namespaces(manifests: Sequence[Mapping[str, Any]], namespace: str | None) -> None:
    """Raise CommandError where a manifest says one namespace and the command another: neither of them is more right."""
    for manifest in manifests:
        own = manifest["metadata"].get("namespace")
        if namespace is not None and own not in (None, namespace):
            raise CommandError(
                f"{name_of(manifest)} is for the namespace {own}, and -n says {namespace}: nothing was applied",
                hint="Leave one of them out.",
            )


def _names(checked: Sequence[Checked]) -> str:
    return ", ".join("standard input" if one.source == "-" else one.source for one in checked if one.errors)


async def _apply(client: AsyncClient, manifests: Sequence[Mapping[str, Any]], options: Options, streams: Streams) -> int:
    from finetune_client import ClientError

    done, code = [], 0
    jobs: list[tuple[str | None, str]] = []
    for manifest in manifests:
        try:
            applied = await client.apply(manifest, force=options.force, dry_run=options.dry_run)
        except ClientError as error:
            # The others are tried all the same, as kubectl does; the first error decides the exit code.
            said = command_error(error)
            print(f"{paint_for(streams.stderr)('error:', 'red')} {name_of(manifest)}: {said.message}", file=streams.stderr)
            if said.hint:
                print(f"  → {said.hint}", file=streams.stderr)
            code = code or said.exit_code
            continue
        done.append(applied.manifest)
        if options.output == "text":
            print(f"{name_of(applied.manifest)} {applied.what}{' (dry run)' if options.dry_run else ''}", file=streams.stdout)
        if applied.kind == KIND:
            jobs.append((applied.job.namespace, applied.job.name))
    if options.output != "text" and done:
        print(printed(done, options.output, single=len(manifests) == 1), file=streams.stdout)
    if code or not options.wait or options.dry_run:
        return code
    return await _wait(client, jobs, streams)


async def _wait(client: AsyncClient, jobs: Sequence[tuple[str | None, str]], streams: Streams) -> int:
    from finetune_cli.cluster.board import board_for
    from finetune_cli.cluster.follow import follow

    board = board_for(streams.stderr, lambda: datetime.now(UTC), namespaces=len({namespace for namespace, _ in jobs}) > 1)
    ended = await follow(client, jobs, board)
    return ExitCode.SUCCESS if all(job.succeeded for job in ended) else ClusterExit.JOB_FAILED
