"""One conversation with a cluster: connects, runs what a command does, and turns the client's errors into the command's."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from finetune_api.constants import ExitCode
from finetune_cli.cluster.words import safe
from finetune_cli.errors import ClusterExit, CommandError

try:
    import finetune_client as client
except ModuleNotFoundError as missing:
    raise CommandError(
        f"the package {str(missing.name).partition('.')[0]}, which speaks to clusters, is not installed here",
        hint="Install it with: pip install 'finetune-operator[cli,client]'",
        exit_code=ExitCode.INTERNAL,
    ) from missing

T = TypeVar("T")
CODES: Final[tuple[tuple[type[client.ClientError], int], ...]] = (
    (client.JobEnded, ClusterExit.JOB_FAILED),
    (client.Unreadable, ClusterExit.JOB_FAILED),
    (client.Unwritable, ExitCode.STORAGE),
    (client.WaitTimeout, ClusterExit.TIMED_OUT),
    (client.NotFound, ClusterExit.NOT_FOUND),
    (client.Forbidden, ClusterExit.FORBIDDEN),
    (client.Unauthorized, ClusterExit.FORBIDDEN),
    (client.Unreachable, ClusterExit.UNREACHABLE),
    (client.ServerTrouble, ClusterExit.UNREACHABLE),
    (client.ConfigError, ClusterExit.UNREACHABLE),
    (client.Conflict, ClusterExit.CONFLICT),
    (client.OperatorMissing, ClusterExit.NOT_INSTALLED),
    (client.Invalid, ExitCode.BAD_CONFIG),
)


@dataclass(frozen=True)
class Target:
    """Which cluster and namespace a command means."""

    kubeconfig: Path | None = None
    context: str | None = None
    namespace: str | None = None


def converse(target: Target, work: Callable[[client.AsyncClient], Awaitable[T]]) -> T:
    """Run `work` with a client.

    Raises:
        CommandError: With the exit code that `finetune --help` lists.
    """

    async def conversation() -> T:
        async with client.AsyncClient(kubeconfig=target.kubeconfig, context=target.context, namespace=target.namespace) as connected:
            return await work(connected)

    try:
        return asyncio.run(conversation())
    except client.ClientError as error:
        raise command_error(error) from error


def command_error(error: client.ClientError) -> CommandError:
    """The same error with its exit code."""
    code = next((code for kind, code in CODES if isinstance(error, kind)), ExitCode.INTERNAL)
    return CommandError(safe(error.message), hint=safe(error.hint), exit_code=int(code))
