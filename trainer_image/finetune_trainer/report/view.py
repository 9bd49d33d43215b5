"""Everything that the report says about a run, read from its run folder and from nowhere else.

Reading is the only I/O here. A run that failed or still runs has fewer files; what is missing is None or empty, and the report says less.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from finetune_api.constants import Reason
from finetune_api.v1alpha1.data import GROUPS
from finetune_api.v1alpha1.fine_tune_job import FineTuneJobSpec
from finetune_api.v1alpha1.stage import Stage
from finetune_api.v1alpha1.status import Provenance
from finetune_api.wire import RunResult
from finetune_trainer import arms
from finetune_trainer.checkpoint import lineage
from finetune_trainer.checkpoint.epochs import CURVE
from finetune_trainer.checkpoint.files import FileLayer
from finetune_trainer.checkpoint.journal import Event, Journal
from finetune_trainer.data.prepared import dataset_hashes, read_report
from finetune_trainer.data.report import PrepareReport
from finetune_trainer.diagnosis import DATA_BOUND, Diagnosis, changes
from finetune_trainer.engine.schedule import total_steps
from finetune_trainer.errors import TrainerError
from finetune_trainer.evaluation.results import BASE, PointResult, PointSamples, point_name, read, read_points, samples_path
from finetune_trainer.evaluation.spread import ArmsResult
from finetune_trainer.run_folder import RunFolder

Series = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Noticed:
    """Something that the course of a stage shows, from one step to another."""

    since: int
    until: int | None
    """None: to the last step that was recorded."""
    message: str


@dataclass(frozen=True)
class Told:
    """How well dann's discriminator told rows apart by their features."""

    role: str
    """domain, or confounder."""
    accuracy: Series
    chance: Series
    """What guessing would have told."""


@dataclass(frozen=True)
class Curve:
    """What a stage's training looked like. Each series is (optimizer step, value), ascending."""

    stage: str
    objective: str
    loss: Series
    learning_rate: Series
    validation_loss: Series
    resumed: Sequence[int]
    """Steps after which a new process went on."""
    noticed: Sequence[Noticed] = ()
    told: Sequence[Told] = ()


@dataclass(frozen=True)
class Start:
    """One start of a trainer process."""

    epoch: int
    at: float
    """Seconds since the epoch."""
    came_from: str
    """In words: the beginning, or the step that it went on from."""
    steps_lost: int
    rejected: Sequence[str]
    """Damaged checkpoints that were passed over, and why."""


@dataclass(frozen=True)
class Silence:
    """A time in which nothing advanced."""

    at: float
    """When it ended, seconds since the epoch."""
    message: str


@dataclass(frozen=True)
class View:
    """A run, as far as its folder knows it."""

    job: str
    config_hash: str
    threads: int
    spec: FineTuneJobSpec
    document: Mapping[str, Any]
    """The spec as JSON, as it was resolved."""
    result: RunResult | None
    points: Sequence[PointResult]
    samples: Sequence[PointSamples]
    curves: Sequence[Curve]
    resolved: Mapping[str, Mapping[str, Any]]
    """Of each stage that ended, by its name: every option as it was used, and what became of it (resolved.json)."""
    prepare: PrepareReport | None
    provenance: Provenance
    starts: Sequence[Start]
    silences: Sequence[Silence] = ()
    arms: ArmsResult | None = None
    """What the arms came to, where the run has several; the rest of this view is of the one that is published."""


def gather(run: RunFolder, *, result: RunResult | None = None) -> View:
    """Read a run folder. `result`: how the run ends, where the caller knows it before result.json says so.

    Raises TrainerError (RunFolderMismatch) where the folder holds no run.
    """
    identity = _identity(run)
    spec = FineTuneJobSpec.model_validate(identity["spec"])
    names = [stage.name for stage in spec.stages]
    events = Journal(run.journal, FileLayer()).read()
    prepare = read_report(run)
    result = result or _result(run)
    arm = arms.shown(run, spec)
    of_arm = Journal(arm.journal, FileLayer()).read()
    samples = [read(samples_path(arm.evaluation, name), PointSamples) for name in _point_names(names)]
    return View(
        job=identity["job"],
        config_hash=identity["configHash"],
        threads=identity["threads"],
        spec=spec,
        document=identity["spec"],
        result=result,
        points=read_points(arm.evaluation, names),
        samples=[entry for entry in samples if entry is not None],
        curves=_curves(arm, spec, of_arm),
        resolved=_resolved(arm, names),
        prepare=prepare,
        provenance=_provenance(result, prepare, identity["configHash"], spec),
        starts=[_start(event) for event in arms.starts(run, spec)],
        silences=_silences(events),
        arms=arms.read(run),
    )


def _identity(run: RunFolder) -> dict[str, Any]:
    try:
        document: dict[str, Any] = json.loads(run.identity.read_bytes())
        FineTuneJobSpec.model_validate(document["spec"])
        return {name: document[name] for name in ("job", "configHash", "threads", "spec")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        problem = (
            f"{error.error_count()} fields of its spec are unknown here" if isinstance(error, ValidationError) else "it has no run.json"
        )
        raise TrainerError(
            Reason.RUN_FOLDER_MISMATCH,
            f"this folder holds no run that can be reported on: {problem}",
            where=str(run.root),
            hint="Name the folder that `finetune run` printed, and use the version that ran it.",
        ) from error


def _result(run: RunFolder) -> RunResult | None:
    return RunResult.model_validate_json(run.result.read_bytes()) if run.result.exists() else None


def _point_names(stages: Sequence[str]) -> list[str]:
    return [BASE, *(point_name(index, stage) for index, stage in enumerate(stages))]


def _provenance(result: RunResult | None, prepare: PrepareReport | None, config_hash: str, spec: FineTuneJobSpec) -> Provenance:
    if result and result.provenance:
        return result.provenance
    return Provenance.model_validate(
        {
            "modelRevision": prepare.model.revision if prepare and prepare.model else None,
            "datasetHashes": dataset_hashes(prepare) if prepare else {},
            "configHash": config_hash,
            "seed": spec.data_seed,
        }
    )


def _start(event: Mapping[str, Any]) -> Start:
    came_from = event.get("start")
    words = "the beginning"
    if came_from:
        stage = str(came_from["stage"]).partition("-")[2]
        words = f"the end of {stage}" if came_from["kind"] == "handover" else f"step {came_from['step']} of {stage}"
    if event.get("arm"):
        words = f"{event['arm']}: {words}"
    return Start(
        epoch=int(event["epoch"]),
        at=float(event["at"]),
        came_from=words,
        steps_lost=int(event.get("stepsLost") or 0),
        rejected=[str(entry) for entry in event.get("rejected", [])],
    )


def _curves(run: RunFolder, spec: FineTuneJobSpec, events: Sequence[Mapping[str, Any]]) -> list[Curve]:
    links = lineage.chain(run.epochs, lineage.head(run.epochs)) if run.epochs.is_dir() else []
    curves = []
    for index, stage in enumerate(spec.stages):
        key = lineage.stage_name(index, stage.name)
        paths = [link.folder / lineage.STAGES / key / CURVE for link in links]
        lines = next((found for path in paths if (found := _lines(path))), [])
        if lines:
            curves.append(
                Curve(
                    stage=stage.name,
                    objective=str(stage.objective),
                    loss=_series(lines, "loss"),
                    learning_rate=_series(lines, "learningRate"),
                    validation_loss=_series(lines, "evalLoss"),
                    resumed=[step for event in events if (step := _resumed_at(event, key)) is not None],
                    noticed=_noticed(stage, lines),
                    told=_told(lines),
                )
            )
    return curves


def _told(lines: Sequence[Mapping[str, Any]]) -> list[Told]:
    """What dann's discriminators told, by what they look for."""
    figures = [{"step": line["step"], **line["guards"]} for line in lines if line.get("guards")]
    series = {role: _series(figures, f"dann_{role}") for role in GROUPS}
    return [Told(role, accuracy, _series(figures, f"dann_{role}_chance")) for role, accuracy in series.items() if accuracy]


def _noticed(stage: Stage, lines: Sequence[Mapping[str, Any]]) -> list[Noticed]:
    """What was told of while it trained: the recorded course says the same again."""
    newest = next((line for line in reversed(lines) if line.get("epoch")), lines[-1])
    steps_per_epoch = max(1, round(newest["step"] / newest["epoch"])) if newest.get("epoch") else 1
    training = stage.training
    total = total_steps(epochs=training.num_train_epochs, max_steps=training.max_steps, steps_per_epoch=steps_per_epoch)
    diagnosis = Diagnosis(stage, total_steps=total, steps_per_epoch=steps_per_epoch)
    found = changes(diagnosis, lines)
    judged = [
        Noticed(
            change.step,
            next((later.step for later in found[number + 1 :] if later.reason is change.reason and later.notice is None), None),
            change.notice.message,
        )
        for number, change in enumerate(found)
        if change.notice is not None
    ]
    return sorted([*judged, *_data_bound(lines)], key=lambda noticed: noticed.since)


def _data_bound(lines: Sequence[Mapping[str, Any]]) -> list[Noticed]:
    """When training waited for its data, as it was recorded: a process that went on from a checkpoint began to look anew."""
    told = [(int(line["step"]), line[DATA_BOUND]) for line in lines if DATA_BOUND in line]
    ends = [step for step, _ in told[1:]] + [None]
    return [Noticed(since, until, str(text)) for (since, text), until in zip(told, ends, strict=False) if text is not None]


def _silences(events: Sequence[Mapping[str, Any]]) -> list[Silence]:
    """Times in which nothing advanced: those that ended by themselves, and those that ended their process."""
    stalled = [event for event in events if event["event"] == Event.END and event.get("reason") == Reason.STALLED]
    return [
        Silence(float(event["at"]), str(event.get("message") or ""))
        for event in events
        if event["event"] == Event.SILENCE or event in stalled
    ]


def _resumed_at(event: Mapping[str, Any], key: str) -> int | None:
    start = event.get("start") if event["event"] == Event.START else None
    return int(start["step"]) if start and start["stage"] == key and start["kind"] == "checkpoint" else None


def _lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a curve; a torn last one is a process's that was killed while it wrote."""
    if not path.exists():
        return []
    found = []
    for line in path.read_bytes().splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            break
    return found


def _resolved(run: RunFolder, stages: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    found = {stage: arms.resolved(run, lineage.stage_name(index, stage)) for index, stage in enumerate(stages)}
    return {stage: record for stage, record in found.items() if record is not None}


def _series(lines: Sequence[Mapping[str, Any]], name: str) -> list[tuple[float, float]]:
    return [(float(line["step"]), float(line[name])) for line in lines if line.get(name) is not None]
