"""How a run ended, on the screen: the evaluation, samples side by side, what was published, or what failed and what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from finetune_api.constants import Reason
from finetune_api.shown import page_of
from finetune_api.v1alpha1.fine_tune_job import FineTuneJob
from finetune_api.v1alpha1.status import Artifact, EvaluationStatus, StageScore
from finetune_api.wire import RunResult
from finetune_cli.console import Console
from finetune_cli.outcome import Outcome
from finetune_cli.progress import duration, size
from finetune_cli.run_folder import PointSamples, RunFolder, last_lines
from finetune_cli.terminal import shown

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

SHOWN_SAMPLES = 3
LOG_LINES = 20
_STAGES_ACROSS = 3


def show(
    outcome: Outcome, job: FineTuneJob, folder: RunFolder, *, again: str, output: str, seconds: float, stdout: TextIO, stderr: TextIO
) -> None:
    """Tell how the run ended: the result on `stdout` (as JSON for `-o json`), a failure on `stderr` too."""
    result = outcome.result
    if output == "json":
        print(json.dumps(as_json(outcome, folder), indent=2, ensure_ascii=False), file=stdout)
    out, err = Console(stdout), Console(stderr)
    if result is None or result.outcome == "Stopped":
        print_stopped(err, result, again)
        return
    text = output != "json"
    stages = [stage.name for stage in job.spec.stages]
    if text and (result.outcome == "Succeeded" or result.reason is Reason.GATE_FAILED):
        if result.evaluation:
            out.print(evaluation_table(result.evaluation, stages))
            for line in arms_lines(result):
                out.print(line, soft_wrap=True)
        for part in samples(*folder.samples(job.spec, result)):
            out.print(part)
    if result.outcome == "Failed":
        print_failed(err, outcome, result)
    elif text:
        _print_succeeded(out, outcome, result, job, folder, seconds)


def as_json(outcome: Outcome, folder: RunFolder) -> dict[str, object]:
    """What `-o json` prints."""
    result = outcome.result
    document: dict[str, object] = {} if result is None else result.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {
        "outcome": "Stopped",
        **document,
        "exitCode": outcome.exit_code,
        "runFolder": str(folder.root),
        **({"report": str(found)} if (found := report_path(result, folder)) else {}),
        **({"log": str(outcome.log)} if outcome.log else {}),
    }


def report_path(result: RunResult | None, folder: RunFolder) -> str | None:
    """Where the report lies: among what was published, else in the run folder."""
    published = [artifact.uri.removeprefix("file://") for artifact in (result.artifacts if result else []) if artifact.kind == "report"]
    return published[0] if published else str(folder.report) if folder.report.exists() else None


def evaluation_table(rows: list[EvaluationStatus], stages: list[str]) -> Table:
    """Suites and metrics down, base and stages across, the 95 % interval below each figure. Many stages go down too."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    wide = len(stages) <= _STAGES_ACROSS
    table = Table(title="Evaluation, with 95 % bootstrap intervals", title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    table.add_column("suite and metric", overflow="ellipsis", no_wrap=True, max_width=28)
    for name in ["base", *(f"after {stage}" for stage in stages)] if wide else ["value", "95 % interval"]:
        table.add_column(name, justify="right", no_wrap=wide)
    table.add_column("gate", no_wrap=True)
    suite = None
    for row in rows:
        if row.suite != suite:
            table.add_row(Text(row.suite, style="bold"))
            suite = row.suite
        points = figures(row, stages)
        if wide:
            table.add_row(f"  {row.metric}", *("\n".join(cell(score)) for _, score in points), gate_cell(row))
            continue
        table.add_row(f"  {row.metric}", "", "", gate_cell(row))
        for name, score in points:
            table.add_row(f"    {name}", *[*cell(score), ""][:2])
    return table


def arms_lines(result: RunResult) -> list[str]:
    """What several seeds and a comparison came to, a sentence each."""
    lines = [f"Published: {result.seeds.reason}."] if result.seeds else []
    for row in result.evaluation:
        if row.seeds is not None:
            over = row.seeds
            lines.append(
                f"  {row.suite} {row.metric} over the seeds: {number(over.mean)} ± {over.deviation:.2g} (95 %: {number(over.low)} to {number(over.high)})"
            )
    for row in result.evaluation:
        if row.direct is not None:
            against = row.direct
            verdict = {"Helped": "helped", "Hurt": "hurt", "Unclear": "made no clear difference"}[against.verdict]
            lines.append(
                f"  {row.suite} {row.metric}: {number(against.value)} where {against.stage} is trained directly; the stages before it {verdict}: "
                f"{against.gain:+.4g} (95 %: {against.low:+.4g} to {against.high:+.4g}, positive is better)"
            )
    return lines


def figures(row: EvaluationStatus, stages: list[str]) -> list[tuple[str, StageScore | None]]:
    """What was measured at each point; None where nothing was."""
    scores = {score.stage: score for score in row.stages}
    base = StageScore(stage="base", value=row.baseline, low=row.baseline_low, high=row.baseline_high)
    return [("base", base), *((f"after {stage}", scores.get(stage)) for stage in stages)]


def cell(score: StageScore | None) -> list[str]:
    """The figure, and its interval where there is one; a dash where there is nothing."""
    if score is None or score.value is None:
        return ["–"]
    figure = number(score.value)
    return [figure] if score.low is None or score.high is None else [figure, f"{number(score.low)}–{number(score.high)}"]


def number(value: float) -> str:
    """Four digits that count, without an exponent where a person would write none."""
    magnitude = abs(value)
    if magnitude >= 100_000 or 0 < magnitude < 0.0001:
        return f"{value:.3e}"
    return f"{value:,.0f}" if magnitude >= 1000 else f"{value:#.4g}".rstrip(".")


def gate_cell(row: EvaluationStatus) -> str:
    return {"Passed": "passed", "Failed": "FAILED", None: ""}[row.gate]


def samples(base: PointSamples | None, tuned: PointSamples | None) -> list[RenderableType]:
    """The same prompts, answered by the base and by the tuned model."""
    if tuned is None or not tuned.samples:
        return []
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    before = {sample.row: sample.completion for sample in base.samples} if base else {}
    table = Table(title="Samples, greedy", title_justify="left", title_style="bold", show_lines=True, box=SIMPLE_HEAD)
    for name in ("prompt", "base model", "tuned model", "reference"):
        table.add_column(name, ratio=1 if name == "prompt" else 2, overflow="fold")
    for sample in tuned.samples[:SHOWN_SAMPLES]:
        row = (sample.prompt, before.get(sample.row, "–"), sample.completion, sample.reference)
        table.add_row(*(Text(text) for text in (ending(row[0]), *map(shortened, row[1:]))))
    return [table]


def shortened(text: str, limit: int = 300) -> str:
    """One paragraph, not a page."""
    joined = " ".join(text.split())
    return joined if len(joined) <= limit else joined[: limit - 1] + "…"


def ending(text: str, limit: int = 80) -> str:
    """The end of a prompt: before it stands what the chat template says every time."""
    joined = " ".join(text.split())
    return joined if len(joined) <= limit else "…" + joined[1 - limit :]


def print_stopped(err: Console, result: RunResult | None, again: str, *, then: str = "Go on with") -> None:
    message = result.message if result else "before the next part began"
    err.print(f"Stopped: {message}", style="bold yellow")
    err.print(f"  {then}: {again}", soft_wrap=True)


def print_failed(err: Console, outcome: Outcome, result: RunResult) -> None:
    where = f" in stage {result.stage}" if result.stage else ""
    where += f" at step {result.step}" if result.step is not None else ""
    err.print(f"{result.reason or 'Failed'}{where} (exit code {outcome.exit_code})", style="bold red")
    for line in result.message.splitlines():
        err.print(f"  {line}", soft_wrap=True)
    if result.hint:
        err.print(f"  → {result.hint}", soft_wrap=True)
    if result.reason is not None and (page := page_of(result.reason)):
        err.print(f"  Docs: {page}", soft_wrap=True)
    if outcome.log is not None:
        if outcome.show_log:
            err.print("  The end of the log:", style="dim")
            for line in last_lines(outcome.log, LOG_LINES):
                err.print(f"  | {line}", soft_wrap=True)
        err.print(f"  Log: {shown(outcome.log)}", soft_wrap=True)


def _print_succeeded(out: Console, outcome: Outcome, result: RunResult, job: FineTuneJob, folder: RunFolder, seconds: float) -> None:
    if outcome.already:
        out.print(f"{job.metadata.name} has finished already; nothing was started.", style="bold green")
        out.print(f"  To start anew, choose another --run-folder or delete {shown(folder.root)}.", soft_wrap=True)
    else:
        out.print(f"{job.metadata.name} succeeded in {duration(seconds)}.", style="bold green")
    for artifact in result.artifacts:
        out.print(f"  {artifact.kind + ':':<10} {artifact_path(artifact)} ({size(artifact.bytes)})", soft_wrap=True)


def artifact_path(artifact: Artifact) -> str:
    """A local path where it is one; another URI as it is."""
    return shown(Path(artifact.uri.removeprefix("file://"))) if artifact.uri.startswith(("file://", "/")) else artifact.uri
