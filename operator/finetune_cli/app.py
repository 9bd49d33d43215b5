"""The command line: options and their help. The work is in one module a command, imported when the command runs.

`finetune validate` must answer at once, so nothing here imports rich, and nothing anywhere imports torch.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from finetune_cli.cluster.commands import add_to, examples
from finetune_cli.cluster.options import Context, Force, Kubeconfig, Namespace, Patience, Quiet

EXIT_CODES = (
    (0, "success"),
    (1, "anything else; the log in the run folder has the details"),
    (2, "the command was misspelt: an unknown option or command"),
    (3, "a job on the cluster failed, or does not have what was waited or asked for"),
    (4, "the time that was given is over"),
    (5, "there is no such job on the cluster, or it was deleted"),
    (6, "the cluster forbids it, or does not know these credentials"),
    (7, "the cluster does not answer, or the kubeconfig is wrong"),
    (8, "somebody else owns a field of the job, or it changed in between"),
    (9, "the cluster has no FineTuneJobs: the operator's CRDs are not installed"),
    (10, "the manifest, the options or the run folder are wrong"),
    (11, "the data is wrong"),
    (12, "a model or data set is not accessible (not found, or forbidden)"),
    (20, "out of GPU memory"),
    (21, "the loss diverged (NaN, Inf)"),
    (22, "a gate was missed; nothing was published"),
    (30, "the storage is full or can't be written"),
    (31, "no valid checkpoint where one was promised"),
    (40, "stalled: nothing advanced for a long time"),
    (75, "stopped by Ctrl-C or SIGTERM after a save; the same command goes on"),
    (137, "the trainer was killed (by a second Ctrl-C, or for want of memory); the same command goes on"),
)


app = typer.Typer(
    name="finetune",
    help="Fine-tune language models by manifest: validate a FineTuneJob, see its plan, run it on this machine or on a cluster, read its report.",
    epilog="\n".join(["Exit codes:", *(f"{code:>4}  {meaning}" for code, meaning in EXIT_CODES)]),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Manifest = Annotated[str, typer.Argument(metavar="MANIFEST", help="A file with one FineTuneJob, as YAML or JSON; - reads standard input.")]
RunFolder = Annotated[
    Path | None,
    typer.Option("--run-folder", "-f", metavar="DIR", help="Where everything of the run lies. Default: runs/NAME, by the job's name."),
]
Mount = Annotated[
    list[str] | None,
    typer.Option("--mount", "-m", metavar="NAME=DIR", help="The folder that stands for the claim of pvc://NAME/…; repeat it for others."),
]
Secret = Annotated[
    list[str] | None,
    typer.Option("--secret", metavar="NAME=FILE", help="The file with the token that `credentials: NAME` means; repeat it for others."),
]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads",
        min=1,
        max=4096,
        metavar="N",
        help="CPU threads. Part of the result's last digits: a resumed run keeps its number. Default: every core.",
    ),
]


@app.command(
    epilog=examples(
        "finetune run job.yaml",
        "finetune run job.yaml --mount models=/srv/models --run-folder /scratch/run1",
        "finetune run job.yaml --lr-range",
    )
)
def run(
    manifest: Manifest,
    run_folder: RunFolder = None,
    mount: Mount = None,
    secret: Secret = None,
    threads: Threads = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress, only the result.")] = False,
    output: Annotated[
        Literal["text", "json"], typer.Option("--output", "-o", metavar="text|json", help="How the result is printed.")
    ] = "text",
    lr_range: Annotated[
        bool,
        typer.Option(
            "--lr-range", help="Test learning rates instead: they rise step by step, and nothing is kept but the curve and its picture."
        ),
    ] = False,
    lr_stage: Annotated[
        str | None, typer.Option("--lr-stage", metavar="NAME", help="Which stage --lr-range tests. Default: the first.")
    ] = None,
    lr_from: Annotated[
        float | None,
        typer.Option("--lr-from", min=1e-12, metavar="RATE", help="Its first rate. Default: a hundredth of the method's default."),
    ] = None,
    lr_to: Annotated[
        float | None,
        typer.Option("--lr-to", max=1e4, metavar="RATE", help="Its last rate. Default: a thousand times the method's default."),
    ] = None,
    lr_steps: Annotated[
        int | None,
        typer.Option("--lr-steps", min=10, max=100_000, metavar="N", help="How many rates, one optimizer step each. Default: 100."),
    ] = None,
) -> None:
    """Run a job on this machine, or go on with one.

    Prepares the data, then trains and measures stage by stage, with a progress bar. Ctrl-C saves and ends; the same command goes on from there.
    The exit code is the trainer's.
    """
    from finetune_cli.errors import CommandError
    from finetune_cli.request import RunRequest, pairs
    from finetune_cli.run import run as work

    request = RunRequest(
        manifest=manifest,
        run_folder=run_folder,
        mounts=pairs("--mount", mount or []),
        secrets=pairs("--secret", secret or []),
        threads=threads,
        quiet=quiet,
        output=output,
    )
    if lr_range:
        from finetune_cli.lr_range import Range, run_range

        raise typer.Exit(run_range(request, Range(lr_stage, lr_from, lr_to, lr_steps)))
    if any(option is not None for option in (lr_stage, lr_from, lr_to, lr_steps)):
        raise CommandError("--lr-stage, --lr-from, --lr-to and --lr-steps belong to --lr-range", hint="Add --lr-range.")
    raise typer.Exit(work(request))


@app.command(
    epilog=examples(
        "finetune validate job.yaml", "finetune validate jobs/*.yaml -o json", "kubectl get ftj a -o yaml | finetune validate -"
    )
)
def validate(
    files: Annotated[
        list[str], typer.Argument(metavar="FILES...", help="Manifests, as YAML or JSON, several documents a file; - reads standard input.")
    ],
    output: Annotated[
        Literal["text", "json"], typer.Option("--output", "-o", metavar="text|json", help="How the problems are printed.")
    ] = "text",
) -> None:
    """Check manifests: every problem at once, with its line, its field and what to write instead.

    Nothing is loaded or started. Documents of other kinds are skipped. Exit code 10 if anything is wrong; a warning is not.
    """
    from finetune_cli.terminal import paint_for
    from finetune_cli.validate import as_json, as_text, check_all, exit_code

    checked = check_all(files, sys.stdin.buffer)
    typer.echo(as_json(checked) if output == "json" else as_text(checked, paint_for(sys.stdout)), color=True)
    raise typer.Exit(exit_code(checked))


@app.command(epilog=examples("finetune plan job.yaml", "finetune plan job.yaml -o json"))
def plan(
    manifest: Manifest,
    run_folder: RunFolder = None,
    mount: Mount = None,
    threads: Threads = None,
    output: Annotated[
        Literal["tree", "json", "yaml"], typer.Option("--output", "-o", metavar="tree|json|yaml", help="How the plan is printed.")
    ] = "tree",
) -> None:
    """Show what would run: segments, stages with their resolved options, hand-overs, measurements, gates, output. Nothing is started."""
    from finetune_cli.plan import show
    from finetune_cli.request import RunRequest, pairs

    show(RunRequest(manifest=manifest, run_folder=run_folder, mounts=pairs("--mount", mount or []), threads=threads), output)


@app.command(
    epilog=examples(
        "finetune report runs/my-job --open", "finetune report my-job", "finetune report support-intents -n team-a --dir reports/support"
    )
)
def report(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The run folder, its name below runs/, or a job on the cluster.")],
    open_it: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    folder: Annotated[
        Path | None, typer.Option("--dir", metavar="DIR", help="Of a job on the cluster: where its files go. Default: RUN-report.")
    ] = None,
    force: Force = False,
    timeout: Patience = "5m",
    quiet: Quiet = False,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Write the report of a run here, or bring that of a job on the cluster with its model card; print the paths.

    The report is one HTML file that needs no network. RUN is a run here where it is a path, or a folder of this name is here or below runs/;
    else, and always with --dir, -n, --context or --kubeconfig, it is a job on the cluster, which must have succeeded. Its report comes as a
    model does with `finetune get-model`.
    """
    from finetune_cli.report import is_here, there
    from finetune_cli.report import report as here

    on_cluster = any(given is not None for given in (folder, namespace, context, kubeconfig))
    if is_here(run, on_cluster=on_cluster):
        raise typer.Exit(here(Path(run), open_it=open_it))
    with there(run, on_cluster=on_cluster) as opens:
        from finetune_cli.cluster.fetching import Options
        from finetune_cli.cluster.fetching import report as fetch
        from finetune_cli.cluster.session import Target

        target = Target(kubeconfig, context, namespace)
        raise typer.Exit(fetch(target, run, folder, Options(force, timeout, quiet), open_it=opens if open_it else None))


add_to(app)


@app.command()
def version(
    output: Annotated[Literal["text", "json"], typer.Option("--output", "-o", metavar="text|json", help="How it is printed.")] = "text",
) -> None:
    """Show the versions of everything that decides a result."""
    import json

    from finetune_cli.version import versions

    found = versions()
    typer.echo(json.dumps(found, indent=2) if output == "json" else "\n".join(f"{name:<18} {text}" for name, text in found.items()))
