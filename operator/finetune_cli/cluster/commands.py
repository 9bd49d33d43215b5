"""The cluster's commands: options and their help. Their work is imported when they run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from finetune_cli.cluster.options import (
    Context,
    Everywhere,
    Force,
    Kubeconfig,
    Labels,
    Name,
    Names,
    Namespace,
    Patience,
    Printed,
    Quiet,
    Said,
    SomeNames,
)
from finetune_cli.errors import CommandError


def examples(*commands: str) -> str:
    """An epilog with a line a command."""
    return "\n".join(["Examples:", *(f"  {command}" for command in commands)])


def apply(
    files: Annotated[
        list[str] | None, typer.Argument(metavar="FILE", help="Manifests, several documents a file; - reads standard input.")
    ] = None,
    filename: Annotated[
        list[str] | None, typer.Option("--filename", "-f", metavar="FILE", help="The same, as kubectl has it; repeat it.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Show the jobs until they have ended; exit code 3 if one fails.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Ask the cluster what it would say, and change nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Take over fields that another manager (Argo CD, kubectl) owns.")] = False,
    output: Annotated[
        Literal["text", "json", "yaml", "name"],
        typer.Option("--output", "-o", metavar="text|json|yaml|name", help="How the objects are printed."),
    ] = "text",
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Send jobs (and runtimes) to a cluster: create them, or change what may be changed of them.

    Every manifest is checked here first, as `finetune validate` does, and nothing is sent while one is wrong. Then it is a server-side apply
    by the manager `finetune`, in the manifest's namespace, else in that of -n or of the context. Documents of other kinds are skipped, with a note.
    """
    from finetune_cli.cluster.apply import Options
    from finetune_cli.cluster.apply import apply as work
    from finetune_cli.cluster.session import Target

    named = [*(files or []), *(filename or [])]
    if not named:
        raise CommandError("no manifest is named", hint="For instance: finetune apply -f job.yaml", exit_code=2)
    raise typer.Exit(work(Target(kubeconfig, context, namespace), named, Options(force=force, dry_run=dry_run, wait=wait, output=output)))


def get(
    names: SomeNames = None,
    everywhere: Everywhere = False,
    labels: Labels = "",
    output: Printed = "text",
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """List jobs, with the columns of `kubectl get ftj`. On a narrow terminal the less important columns give way."""
    from finetune_cli.cluster.session import Target
    from finetune_cli.cluster.verbs import get as work

    work(Target(kubeconfig, context, namespace), names or [], everywhere=everywhere, labels=labels, output=output)


def watch(
    names: SomeNames = None,
    everywhere: Everywhere = False,
    labels: Labels = "",
    lines: Annotated[bool, typer.Option("--lines", help="Lines instead of a table, as where the output is no terminal.")] = False,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Show jobs as they go, with bars. A connection that breaks is made again.

    With names it ends when these jobs have ended: exit code 0 if all succeeded, 3 if one failed. Without, Ctrl-C ends it, and no job.
    """
    from finetune_cli.cluster.session import Target
    from finetune_cli.cluster.verbs import watch as work

    raise typer.Exit(work(Target(kubeconfig, context, namespace), names or [], everywhere=everywhere, labels=labels, lines=lines))


def describe(names: Names, namespace: Namespace = None, context: Context = None, kubeconfig: Kubeconfig = None) -> None:
    """Tell all about jobs: how they go, why they wait or failed and what to do, stages, attempts, evaluation, artifacts, events."""
    from finetune_cli.cluster.session import Target
    from finetune_cli.cluster.verbs import describe as work

    work(Target(kubeconfig, context, namespace), names)


def logs(
    name: Name,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the job has ended, also with the pods that come later.")
    ] = False,
    every: Annotated[bool, typer.Option("--all", "-a", help="Of all attempts whose pods are still there, oldest first.")] = False,
    tail: Annotated[int | None, typer.Option("--tail", min=0, metavar="N", help="Only the last N lines of each container.")] = None,
    timestamps: Annotated[bool, typer.Option("--timestamps", help="Begin each line with its time.")] = False,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Print what the newest pod of a job wrote. Terminal escapes are taken out, and lines of more than 8,192 characters cut.

    It reads the pods that are still there, and needs the rights to `list` pods and to `get` pods/log. Of a job that has ended and has no pod left, the operator
    has the logs in the run folder read, as for `finetune get-model`: the newest, or with --all those of all its pods, at most the last 24 MiB.
    """
    from finetune_cli.cluster.session import Target
    from finetune_cli.cluster.verbs import logs as work

    work(Target(kubeconfig, context, namespace), name, follow=follow, every=every, tail=tail, timestamps=timestamps)


def get_model(
    name: Name,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where its files go: a new or empty folder.")],
    kind: Annotated[
        Literal["adapter", "merged"], typer.Option("--kind", metavar="adapter|merged", help="Which of the models that it published.")
    ] = "adapter",
    force: Force = False,
    timeout: Patience = "5m",
    quiet: Quiet = False,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Bring the model of a job that has succeeded to this machine, verified by its sha256.

    The operator has a short-lived pod read it, so no right to make pods is needed, but `patch` on the job, `list` on pods and `get` on
    pods/log. At most 1 GiB comes like this, 48 MiB a pod: whoever wants more mounts the claim, which `finetune describe` names. Nothing has
    its name in DIR before all of it is here. Ctrl-C takes the request back.
    """
    from finetune_cli.cluster.fetching import Options
    from finetune_cli.cluster.fetching import get_model as work
    from finetune_cli.cluster.session import Target

    raise typer.Exit(work(Target(kubeconfig, context, namespace), name, folder, kind, Options(force, timeout, quiet)))


def wait(
    names: Names,
    condition: Annotated[
        str,
        typer.Option(
            "--for",
            metavar="CONDITION",
            help="Complete, Finished (either end), Failed, Suspended, Running, Accepted, Reconciling or Stalled.",
        ),
    ] = "Complete",
    timeout: Annotated[
        str | None, typer.Option("--timeout", metavar="TIME", help="How long, such as 90s, 10m, 1h30m. Default: for ever.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing on the way.")] = False,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Wait until a condition is True of every job.

    Exit code 0: it is. 3: a job has ended, and the condition will not come any more (for Complete: it failed). 4: the time is over. 5: there
    is no such job, or it was deleted. What the jobs do meanwhile goes to standard error.
    """
    from finetune_cli.cluster.session import Target
    from finetune_cli.cluster.verbs import wait as work

    work(Target(kubeconfig, context, namespace), names, condition=condition, timeout=timeout, quiet=quiet)


def suspend(
    names: Names, output: Said = "text", namespace: Namespace = None, context: Context = None, kubeconfig: Kubeconfig = None
) -> None:
    """Save, stop and give the GPUs back; `resume` goes on from there. Returns at once: `finetune wait NAME --for Suspended` waits."""
    from finetune_cli.cluster.session import Target
    from finetune_cli.cluster.verbs import each
    from finetune_cli.cluster.verbs import suspend as work

    raise typer.Exit(each(Target(kubeconfig, context, namespace), names, work, output=output))


def resume(
    names: Names, output: Said = "text", namespace: Namespace = None, context: Context = None, kubeconfig: Kubeconfig = None
) -> None:
    """Go on with suspended or cancelled jobs, from where they saved."""
    from finetune_cli.cluster.session import Target
    from finetune_cli.cluster.verbs import each
    from finetune_cli.cluster.verbs import resume as work

    raise typer.Exit(each(Target(kubeconfig, context, namespace), names, work, output=output))


def cancel(
    names: Names,
    timeout: Annotated[str, typer.Option("--timeout", metavar="TIME", help="How long to wait until it has saved and ended.")] = "10m",
    output: Said = "text",
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Stop jobs, and wait until nothing of them runs any more: saved, GPUs given back, record and checkpoints kept.

    It is a suspension that is waited for, so nothing is lost by mistake: `resume` goes on, and only `delete` ends a job for good. A job that
    has ended is left as it is.
    """
    from finetune_cli.cluster.session import Target
    from finetune_cli.cluster.verbs import cancel as work
    from finetune_cli.cluster.verbs import each
    from finetune_cli.cluster.words import seconds_of

    seconds = seconds_of(timeout)
    if seconds is None:
        raise CommandError(f"--timeout {timeout}: this is no duration", hint="Write 90s, 10m, 1h30m or 2d.", exit_code=2)
    raise typer.Exit(each(Target(kubeconfig, context, namespace), names, work(seconds), output=output))


def delete(
    names: Names, output: Said = "text", namespace: Namespace = None, context: Context = None, kubeconfig: Kubeconfig = None
) -> None:
    """Delete jobs with their pods and their records, for good. What they published stays, unless output.retain says otherwise."""
    from finetune_cli.cluster.session import Target
    from finetune_cli.cluster.verbs import delete as work
    from finetune_cli.cluster.verbs import each

    raise typer.Exit(each(Target(kubeconfig, context, namespace), names, work, output=output))


def add_to(app: typer.Typer) -> None:
    """Register them, each with its examples."""
    for command, epilog in (
        (
            apply,
            examples("finetune apply -f job.yaml", "finetune apply -f jobs.yaml --wait", "cat job.yaml | finetune apply -f - --dry-run"),
        ),
        (get, examples("finetune get", "finetune get -A -o wide", "finetune get support-intents -o yaml")),
        (watch, examples("finetune watch", "finetune watch support-intents")),
        (describe, examples("finetune describe support-intents")),
        (logs, examples("finetune logs support-intents -f", "finetune logs support-intents --all --tail 100")),
        (get_model, examples("finetune get-model support-intents adapter", "finetune get-model support-intents model --kind merged")),
        (wait, examples("finetune wait support-intents --timeout 24h && echo trained", "finetune wait a b --for Finished")),
        (suspend, examples("finetune suspend support-intents")),
        (resume, examples("finetune resume support-intents")),
        (cancel, examples("finetune cancel support-intents")),
        (delete, examples("finetune delete support-intents")),
    ):
        app.command(name=command.__name__.replace("_", "-"), epilog=epilog)(command)
