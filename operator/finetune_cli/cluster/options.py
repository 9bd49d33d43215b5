"""The options that the cluster's commands share, and the completion of their names. Imported with every command: imports nothing that is slow."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

COMPLETION_SECONDS = 3.0


def job_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """For the shell's completion: the names of the namespace's jobs; none where the cluster does not answer soon."""
    import asyncio
    import contextlib

    from finetune_cli.errors import CommandError

    given = ctx.params
    with contextlib.suppress(CommandError, TimeoutError):  # nobody can be told anything while he types
        from finetune_cli.cluster.session import Target, converse
        from finetune_client import AsyncClient

        async def ask(connected: AsyncClient) -> list[str]:
            async with asyncio.timeout(COMPLETION_SECONDS):
                return [job.name for job in await connected.list() if job.name.startswith(incomplete)]

        return converse(Target(given.get("kubeconfig"), given.get("context"), given.get("namespace")), ask)
    return []


Name = Annotated[str, typer.Argument(metavar="NAME", help="The job.", autocompletion=job_names)]
Names = Annotated[list[str], typer.Argument(metavar="NAME", help="The jobs.", autocompletion=job_names)]
SomeNames = Annotated[list[str] | None, typer.Argument(metavar="NAME", help="Only these jobs.", autocompletion=job_names)]
Namespace = Annotated[
    str | None,
    typer.Option("--namespace", "-n", metavar="NAMESPACE", help="Default: the context's."),
]
Context = Annotated[str | None, typer.Option("--context", metavar="CONTEXT", help="Of the kubeconfig. Default: its current one.")]
Kubeconfig = Annotated[
    Path | None,
    typer.Option("--kubeconfig", metavar="FILE", help="Default: $KUBECONFIG, then ~/.kube/config, then the pod's service account."),
]
Everywhere = Annotated[bool, typer.Option("--all-namespaces", "-A", help="The jobs of all namespaces.")]
Labels = Annotated[str, typer.Option("--selector", "-l", metavar="LABELS", help="Only jobs with these labels, such as team=search.")]
Printed = Annotated[
    Literal["text", "wide", "json", "yaml", "name"],
    typer.Option("--output", "-o", metavar="text|wide|json|yaml|name", help="How they are printed."),
]
Force = Annotated[bool, typer.Option("--force", help="Into a folder that is not empty, where files of the same names are replaced.")]
Patience = Annotated[str, typer.Option("--timeout", metavar="TIME", help="How long to wait while nothing new comes.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
Said = Annotated[Literal["text", "name"], typer.Option("--output", "-o", metavar="text|name", help="How what was done is printed.")]
