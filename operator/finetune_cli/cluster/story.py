"""`finetune describe`: what a job is, how it goes, what became of it and what to do, top to bottom as one would tell it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from finetune_api.arms import placed
from finetune_cli.cluster.words import age, one_line, safe_line, span
from finetune_cli.progress import size
from finetune_cli.terminal import Paint
from finetune_client.objects import Event, Job, parse_time

STYLES: Final = {
    "Running": "blue",
    "Preparing": "blue",
    "Succeeded": "green",
    "Failed": "red",
    "Suspended": "yellow",
    "Suspending": "yellow",
}
MOST_EVENTS: Final = 50
"""That are told: the newest. A job that is tried for weeks may have thousands."""
MARKS: Final = {"Succeeded": "✓", "Failed": "✗", "Running": "▸"}
Part = Iterator[str]
Fields = Mapping[str, Any]


def story(job: Job, events: Sequence[Event], *, now: datetime, paint: Paint) -> str:
    """The whole text. events: oldest first."""
    status = job.raw_status
    parts: list[list[str]] = [
        list(_head(job, now, paint)),
        list(_failure(status.get("failure") or {}, paint)),
        _titled("Warnings", _warnings(status, now, paint), paint),
        list(_facts(job, now)),
        _titled("Stages", _stages(status), paint),
        _titled("Attempts", _attempts(status, now), paint),
        _titled("Evaluation", _evaluation(status, paint), paint),
        _titled("Artifacts", _artifacts(status), paint),
        _titled("To have what it left", _left(job), paint),
        _titled("What happened", _events(events, now, paint), paint),
    ]
    return "\n\n".join("\n".join(part) for part in parts if part)


def headline(job: Job) -> list[str]:
    """What it does and how far it is: `Running`, `41 %`, `stage task`, `step 410 of 1,000`, `loss 0.81`, `1h left`."""
    status = job.raw_status
    progress = status.get("progress") or {}
    parts = [job.phase or "not looked at by an operator yet"]
    if job.deleting:
        parts.append("being deleted")
    if progress.get("percent") is not None and not job.succeeded:
        parts.append(f"{progress['percent']} %")
    if working := at_work(job, "stage "):
        parts.append(working)
    if job.phase == "Running":
        step, total = progress.get("step"), progress.get("totalSteps")
        if step is not None:
            parts.append(f"step {step:,}" + (f" of {total:,}" if total else ""))
        if progress.get("loss") is not None:
            parts.append(f"loss {progress['loss']:.4g}")
        if progress.get("eta"):
            parts.append(f"{one_line(str(progress['eta']))} left")
    return parts


def at_work(job: Job, word: str) -> str:
    """The stage that runs, behind the word for it and what it is trained for where the job trains it more than once; empty where none runs."""
    stage, arm = job.raw_status.get("currentStage"), (job.raw_status.get("progress") or {}).get("arm")
    return placed(one_line(str(arm or "")), f"{word}{one_line(str(stage))}") if stage else ""


def _head(job: Job, now: datetime, paint: Paint) -> Part:
    first, *rest = headline(job)
    style = STYLES.get(job.phase)
    yield f"{paint(job.name, 'bold')} in {job.namespace}: {', '.join([paint(first, style) if style else first, *rest])}"
    said = one_line(job.says)
    if said and not job.failed:
        yield f"  {said}"
    if not job.phase:
        yield "  → No operator has looked at it yet: does one serve this namespace? (`kubectl -n finetune-system get pods`)"


def _failure(failure: Fields, paint: Paint) -> Part:
    if not failure:
        return
    where = f" in stage {one_line(str(failure['stage']))}" if failure.get("stage") else ""
    code = f" (exit code {failure['exitCode']})" if failure.get("exitCode") is not None else ""
    yield paint(f"{one_line(str(failure.get('reason')))}{where}{code}", "red")
    for line in str(failure.get("message") or "").splitlines():
        yield f"  {safe_line(line)}"
    if failure.get("hint"):
        yield f"  → {one_line(str(failure['hint']))}"
    lines = failure.get("lastLogLines") or []
    if lines:
        yield paint("  The end of the log:", "dim")
        yield from (f"  | {safe_line(str(line))}" for line in lines)


def _warnings(status: Fields, now: datetime, paint: Paint) -> Part:
    for each in status.get("warnings") or []:
        since = age(parse_time(each.get("since")), now)
        yield f"{paint(one_line(str(each.get('reason'))), 'yellow')} for {since}: {one_line(str(each.get('message') or ''))}"


def _facts(job: Job, now: datetime) -> Part:
    spec, status = job.manifest.get("spec") or {}, job.raw_status
    model = spec.get("model") or {}
    runtime = (status.get("runtime") or {}).get("name") or (spec.get("runtimeRef") or {}).get("name") or "the cluster's default"
    usage = status.get("usage") or {}
    facts = {
        "Model": f"{model.get('uri', '')}" + (f" at {model['revision']}" if model.get("revision") else ""),
        "Runtime": str(runtime),
        "Created": f"{job.created:%Y-%m-%d %H:%M:%S %Z} ({age(job.created, now)} ago)" if job.created else "",
        "Queue": str((status.get("summary") or {}).get("queue") or ""),
        "GPU": _gpu(status.get("progress") or {}),
        "Used": f"{span(usage['gpuSeconds'])} of GPU time" if usage.get("gpuSeconds") else "",
    }
    yield from (f"{name:<9}{one_line(text)}" for name, text in facts.items() if text)


def _gpu(progress: Fields) -> str:
    """Example: `97 % busy, 40.0 GiB held, at most 48.0 GiB taken of 80.0 GiB`."""
    busy, held, most, there = (
        progress.get(name) for name in ("gpuUtilizationPercent", "gpuMemoryBytes", "gpuMemoryPeakBytes", "gpuMemoryTotalBytes")
    )
    parts = [f"{busy} % busy"] if busy is not None else []
    parts += [f"{size(held)} held"] if held is not None else []
    parts += [f"at most {size(most)} taken" + (f" of {size(there)}" if there else "")] if most is not None else []
    return ", ".join(parts)


def _stages(status: Fields) -> Part:
    for stage in status.get("stages") or []:
        phase = str(stage.get("phase") or "Pending")
        figures = ", ".join(f"{one_line(name)} {value:.4g}" for name, value in (stage.get("metrics") or {}).items())
        saved = stage.get("checkpoint") or {}
        checkpoint = f", checkpoint at step {saved['step']:,}" + ("" if saved.get("verified") else " (not verified)") if saved else ""
        yield f"{MARKS.get(phase, '·')} {one_line(str(stage.get('name')))}: {phase}" + (f", {figures}" if figures else "") + checkpoint


def _attempts(status: Fields, now: datetime) -> Part:
    for each in status.get("attempts") or []:
        begun, ended = parse_time(each.get("startedAt")), parse_time(each.get("finishedAt"))
        reason = one_line(str(each.get("reason") or "")) or ("Running" if begun else "Starting")
        parts = [f"{one_line(str(each.get('segment')))} {each.get('number')}: {reason}"]
        parts += [f"exit code {each['exitCode']}"] if each.get("exitCode") else []
        parts += [f"on {one_line(str(each['node']))}"] if each.get("node") else []
        parts += [f"for {span(max(0.0, ((ended or now) - begun).total_seconds()))}"] if begun else []
        parts += [f"from step {each['resumedFromStep']:,}"] if each.get("resumedFromStep") is not None else []
        parts += [f"{each['stepsLost']:,} steps done again"] if each.get("stepsLost") else []
        yield ", ".join(parts)


def _evaluation(status: Fields, paint: Paint) -> Part:
    for row in status.get("evaluation") or []:
        values = [f"base {row['baseline']:.4g}"] if row.get("baseline") is not None else []
        values += [
            f"{one_line(str(each['stage']))} {each['value']:.4g}" for each in row.get("stages") or [] if each.get("value") is not None
        ]
        gate = {"Passed": paint("gate passed", "green"), "Failed": paint("gate FAILED", "red")}.get(str(row.get("gate")), "")
        text = f"{one_line(str(row.get('suite')))} {one_line(str(row.get('metric')))}: {' → '.join(values) or 'not measured'}"
        yield f"{text}, {gate}" if gate else text
        if over := row.get("seeds"):
            yield f"  over the seeds: {over['mean']:.4g} ± {over['deviation']:.2g} (95 %: {over['low']:.4g} to {over['high']:.4g})"
        if direct := row.get("direct"):
            verdict = {"Helped": paint("helped", "green"), "Hurt": paint("hurt", "red")}.get(
                str(direct.get("verdict")), "made no clear difference"
            )
            yield (
                f"  {one_line(str(direct['stage']))} directly from the base: {direct['value']:.4g}; the stages before {verdict}: "
                f"{direct['gain']:+.4g} (95 %: {direct['low']:+.4g} to {direct['high']:+.4g}, positive is better)"
            )
    if seeds := status.get("seeds"):
        yield f"published: {one_line(str(seeds['reason']))}"


def _artifacts(status: Fields) -> Part:
    for each in status.get("artifacts") or []:
        yield f"{each.get('kind')}: {one_line(str(each.get('uri')))} ({size(each.get('bytes') or 0)}, sha256 {str(each.get('sha256'))[:12]}…)"


def _left(job: Job) -> Part:
    """The commands that bring what a job left, of those that have something to bring."""
    if not job.finished:
        return
    kinds = {str(each.get("kind")) for each in job.raw_status.get("artifacts") or []}
    here = f"-n {job.namespace} {job.name}"
    yield from [f"finetune report {here}"] if "report" in kinds else []
    yield from [f"finetune get-model {here} DIRECTORY"] if kinds & {"adapter", "merged"} else []
    yield from [f"finetune logs {here}"] if job.raw_status.get("attempts") else []


def _events(events: Sequence[Event], now: datetime, paint: Paint) -> Part:
    if len(events) > MOST_EVENTS:
        yield f"… and {len(events) - MOST_EVENTS:,} before (`kubectl events` tells them all)"
    for event in events[-MOST_EVENTS:]:
        times = f" (×{event.count})" if event.count > 1 else ""
        reason = paint(event.reason, "yellow") if event.severity == "Warning" else event.reason
        yield f"{age(event.at, now):>6} ago  {one_line(reason) if reason == event.reason else reason}: {one_line(event.message)}{times}"


def _titled(title: str, lines: Part, paint: Paint) -> list[str]:
    found = [f"  {line}" for line in lines]
    return [paint(title, "bold"), *found] if found else []
