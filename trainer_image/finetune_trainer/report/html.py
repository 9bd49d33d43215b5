"""The report: one HTML file that needs nothing else, from the files of a run folder.

No script, no font, no picture is fetched: it can be mailed, archived, and read in ten years. Everything that a user typed goes through the
template's escaping; only the pictures, whose text is escaped where they are made, are put in as they are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from finetune_api.v1alpha1.evaluation import Metric
from finetune_api.v1alpha1.stage import Objective, Stage
from finetune_api.wire import RunResult
from finetune_trainer.data.report import PrepareReport, SetReport
from finetune_trainer.evaluation.results import BASE, Estimate, GateVerdict, PointResult, SuiteResult, to_status
from finetune_trainer.evaluation.table import Row, cell_text, decimals, figure, table
from finetune_trainer.report.model_card import method_text
from finetune_trainer.report.pictures import Picture
from finetune_trainer.report.plots import classes_picture, curve_picture, evaluation_pictures, lengths_picture, told_picture
from finetune_trainer.report.story import story
from finetune_trainer.report.view import View, gather
from finetune_trainer.run_folder import RunFolder

FILE = "report.html"
TOLD_ELSEWHERE: Final = ("course", "told")
"""What became of a stage by its method stands under its curves, not among the options."""


def write_report(run: RunFolder, *, result: RunResult | None = None) -> Path:
    """Write RUN/artifacts/report.html and return its path. `result`: how the run ends, where result.json does not say so yet.

    Raises TrainerError (RunFolderMismatch) where the folder holds no run.
    """
    page = render(gather(run, result=result))
    path = run.artifacts / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(page, encoding="utf-8")
    temporary.replace(path)
    return path


@dataclass(frozen=True)
class Finding:
    """What became of one figure, for the summary."""

    suite: str
    metric: str
    before: str
    after: str
    verdict: str
    """better, worse, or unclear."""
    words: str


@dataclass(frozen=True)
class Shown:
    """One row of the samples: what each point wrote."""

    prompt: str
    full_prompt: str
    reference: str
    completions: Sequence[tuple[str, str]]
    """(point, text): the base first, the last stage last."""


@dataclass(frozen=True)
class DataSet:
    """A set of rows with its pictures."""

    name: str
    objective: str
    report: SetReport
    max_length: int
    lengths: Picture | None
    classes: Picture | None


def render(view: View) -> str:
    """Return the page. Pure."""
    environment = Environment(
        loader=PackageLoader("finetune_trainer.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"moment": _moment, "svg": _svg, "percent": _percent, "figure": figure, "cell": cell_text, "signed": _gained}
    rows = table(to_status(view.points))
    verdicts = [verdict for point in view.points for verdict in point.gates]
    objectives = {suite.name: str(suite.objective) for point in view.points for suite in point.suites}
    return environment.get_template("report.html.j2").render(
        view=view,
        outcome=_outcome(view, verdicts),
        findings=findings(view.points),
        rows=rows,
        story=story(view, objectives, verdicts),
        points=list(dict.fromkeys(cell.point for row in rows for cell in row.cells)),
        evaluation=evaluation_pictures(rows, objectives, verdicts),
        suites=_suites(view.points),
        verdicts=verdicts,
        samples=samples(view),
        curves=[(curve, curve_picture(index, curve), told_picture(index, curve)) for index, curve in enumerate(view.curves)],
        data=datasets(view.prepare) if view.prepare else [],
        options=[(stage, method_text(stage.method), _options(stage, view.resolved.get(stage.name, {}))) for stage in view.spec.stages],
        manifest=json.dumps(view.document, indent=2, ensure_ascii=False),
        facts=provenance_lines(view),
    )


def findings(points: Sequence[PointResult]) -> list[Finding]:
    """What the last measured stage changed against the base: the direction counts where the paired 95 % interval leaves out zero."""
    base = next((point for point in points if point.point == BASE), None)
    last = points[-1] if points and points[-1].point != BASE else None
    if base is None or last is None:
        return []
    found = []
    for suite in last.suites:
        before = base.suite(suite.name)
        for metric, after in suite.estimates.items():
            if before and metric in before.estimates:
                found.append(_finding(suite.name, metric, before.estimates[metric], after, suite.changes.get(metric)))
    return found


def _finding(suite: str, metric: Metric, before: Estimate, after: Estimate, change: Estimate | None) -> Finding:
    lower = Row(suite, metric, [], None).lower_is_better
    certain = change is not None and (change.low > 0 or change.high < 0)
    improved = (after.value < before.value) if lower else (after.value > before.value)
    verdict = ("better" if improved else "worse") if certain else "unclear"
    words = "no paired measurement"
    if change is not None:
        places = min(decimals(one, metric) for one in (before.value, after.value))
        value, low, high = (_signed(one, places) for one in (change.value, change.low, change.high))
        words = f"change {value}, 95 % interval {low} to {high}"
    return Finding(suite, metric, figure(before.value, metric), figure(after.value, metric), verdict, words)


def samples(view: View) -> list[Shown]:
    """Join the points' samples by row."""
    if not view.samples:
        return []
    names = {entry.point: _where(None if entry.point == BASE else entry.point.partition("-")[2]) for entry in view.samples}
    by_point = {names[entry.point]: {sample.row: sample for sample in entry.samples} for entry in view.samples}
    return [
        Shown(
            sample.prompt,
            sample.full_prompt,
            sample.reference,
            [(name, written[sample.row].completion) for name, written in by_point.items() if sample.row in written],
        )
        for sample in view.samples[0].samples
    ]


def datasets(prepare: PrepareReport) -> list[DataSet]:
    """Every set of rows that was prepared: training and validation of each stage, then the suites."""
    sets: list[tuple[str, str, SetReport, int]] = []
    for stage in prepare.stages:
        sets.append((f"stage {stage.name}, training", stage.objective, stage.train, stage.max_length))
        if stage.validation:
            sets.append((f"stage {stage.name}, validation", stage.objective, stage.validation, stage.max_length))
    sets += [(f"suite {suite.name}", suite.objective, suite.rows, suite.max_length) for suite in prepare.suites]
    return [
        DataSet(
            name,
            objective,
            report,
            limit,
            lengths_picture(index, name, report.histogram, limit) if sum(report.histogram.counts) else None,
            classes_picture(index, name, report.classes) if report.classes else None,
        )
        for index, (name, objective, report, limit) in enumerate(sets)
    ]


def _outcome(view: View, verdicts: Sequence[GateVerdict]) -> Mapping[str, str]:
    """The badge at the top: a word, a class for its colour, and a sentence."""
    missed = [verdict for verdict in verdicts if not verdict.passed]
    if view.result and view.result.outcome == "Failed":
        return {"word": "Failed", "kind": "worse", "words": f"{view.result.reason or ''}: {view.result.message}", "hint": view.result.hint}
    if missed:
        return {
            "word": "Gate failed",
            "kind": "worse",
            "words": missed[0].message,
            "hint": "Nothing was published; the checkpoints are kept.",
        }
    if view.result and view.result.outcome == "Stopped":
        return {"word": "Stopped", "kind": "unclear", "words": view.result.message, "hint": view.result.hint}
    if view.result is None:
        return {"word": "Not finished", "kind": "unclear", "words": "This is what was there when the report was written.", "hint": ""}
    words = f"All {len(verdicts)} gates passed." if len(verdicts) > 1 else "The gate passed." if verdicts else "The job has no gates."
    return {"word": "Succeeded", "kind": "better", "words": words, "hint": ""}


def _suites(points: Sequence[PointResult]) -> list[dict[str, str]]:
    """A line a suite: how many rows, and what a reader must know of which point."""
    lines = []
    for name in dict.fromkeys(suite.name for point in points for suite in point.suites):
        measured = {_where(point.stage): suite for point in points if (suite := point.suite(name))}
        notes: dict[str, list[str]] = {}
        for where, suite in measured.items():
            for note in _notes(suite):
                notes.setdefault(note, []).append(where)
        texts = [note if len(places) == len(measured) else f"{', '.join(places)}: {note}" for note, places in notes.items()]
        one = next((suite for suite in measured.values() if suite.rows), next(iter(measured.values())))
        unit = "rows" if one.objective is Objective.CLASSIFICATION else "tokens"
        size = [f"{one.rows:,} rows, {one.tokens:,} predicted {unit}"] if one.rows else []
        lines.append({"name": name, "objective": str(one.objective), "notes": "; ".join([*size, *texts])})
    return lines


def _where(stage: str | None) -> str:
    return "base" if stage is None else f"after {stage}"


def _notes(suite: SuiteResult) -> list[str]:
    notes = [f"not applicable: {suite.not_applicable}"] if suite.not_applicable else [suite.note] if suite.note else []
    if suite.bits_per_byte:
        bits = suite.bits_per_byte
        notes.append(f"{bits.value:.3f} bits a byte (95 %: {bits.low:.3f} to {bits.high:.3f})")
    return notes


def _options(stage: Stage, resolved: Mapping[str, Any]) -> dict[str, str]:
    """Every option as it was used; as the manifest has it, where the stage has not ended."""
    document = resolved.get("training") or stage.training.model_dump(mode="json", exclude_none=True)
    facts = resolved.get("model", {}) | {name: resolved[name] for name in ("steps", "stepUsed", "stoppedEarly") if name in resolved}
    facts |= {name: value for name, value in resolved.get("metrics", {}).items() if name.startswith("guard_")}
    handed = resolved.get("handOver", {})
    facts |= {"handOverScale": handed.get("scale"), "validation loss at handOverScale": handed.get("losses")}
    return {name: _value(value) for name, value in (facts | document).items() if value not in (None, [], {}) and name not in TOLD_ELSEWHERE}


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_value(one)}" for name, one in value.items() if one is not None)
    if isinstance(value, list):
        return ", ".join(_value(one) for one in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _signed(value: float, places: int) -> str:
    return f"{value:+,.{places}f}".replace("-", "−")


def _gained(value: float, metric: str, beside: float) -> str:
    """A difference, with the decimals of the figure beside it."""
    return _signed(value, max(decimals(beside, metric), 3 if abs(value) < 0.1 else 2))


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %" if value else "0 %"


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _svg(picture: Picture) -> Markup:
    """Every layout; the style sheet shows one. Their text was escaped when they were made."""
    return Markup("".join(picture.svgs))


def provenance_lines(view: View) -> list[tuple[str, Any]]:
    """Facts for the last section."""
    facts = view.provenance
    lines: list[tuple[str, Any]] = [
        ("base model", view.spec.model.uri),
        ("model revision", facts.model_revision),
        ("configHash", facts.config_hash or view.config_hash),
        ("seed", facts.seed if facts.seed is not None else view.spec.data_seed),
        ("threads", view.threads),
        ("image", facts.image_digest),
        *((f"version of {name}", version) for name, version in sorted(facts.versions.items())),
        *((f"SHA-256 of {uri}", digest) for uri, digest in sorted(facts.dataset_hashes.items())),
    ]
    return [(name, value) for name, value in lines if value is not None]
