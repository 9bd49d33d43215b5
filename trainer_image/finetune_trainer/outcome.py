"""What a run came to, read back from its folder: for `result.json`, whichever way the process ended. Imports no torch."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from finetune_api.v1alpha1.stage import Stage
from finetune_api.v1alpha1.status import CheckpointStatus, Phase, StageStatus
from finetune_api.wire import RunResult, StageResult, TrainerConfig
from finetune_trainer import arms
from finetune_trainer.checkpoint.epochs import Epoch
from finetune_trainer.checkpoint.files import FileLayer
from finetune_trainer.checkpoint.journal import Event, Journal, process_of, this_process
from finetune_trainer.checkpoint.lineage import STAGES, stage_name
from finetune_trainer.evaluation.results import read_points, to_status
from finetune_trainer.evaluation.spread import with_arms
from finetune_trainer.run_folder import RunFolder

SCALE: Final = "hand_over_scale"
"""Among a stage's metrics: the share of its change that was handed over, where that was not all of it as a matter of course."""


def resumed(epoch: Epoch) -> str:
    """A sentence on where a run goes on."""
    if epoch.start is None:
        return "started from the beginning"
    lost = f", {epoch.steps_lost} steps are done again" if epoch.steps_lost else ""
    return f"resumed from {epoch.start}{lost}"


def complete(result: RunResult, config: TrainerConfig, *, prepared: bool = False) -> RunResult:
    """Add what the run folder knows: each stage, what was measured so far, and where this process went on.

    prepared: whether the result is of a process that prepared. Its success is no stage's: in a pod that goes on it comes after stages have begun.
    """
    top = RunFolder(Path(config.run_folder))
    run, told = arms.shown(top, config.spec), arms.read(top)
    uri = "/".join([config.pod.run_uri if config.pod else f"file://{top.root}", *run.root.relative_to(top.root).parts])
    events = Journal(run.journal, FileLayer()).read()
    trained = result.outcome == "Succeeded" and not prepared
    stages = [_stage(run, uri, events, index, stage, result, trained=trained) for index, stage in enumerate(config.spec.stages)]
    points = read_points(run.evaluation, [stage.name for stage in config.spec.stages])
    mine = (event for event in reversed(arms.starts(top, config.spec)) if process_of(event) == this_process())
    start: dict[str, Any] = next(mine, {})
    went_on = {"resumed_from_step": start.get("resumedFromStep"), "steps_lost": start.get("stepsLost")}
    found = {"evaluation": with_arms(to_status(points), told), "seeds": told.seeds if told else None}
    return result.model_copy(update={"stages": stages, **found, **went_on})


def finished(result: RunResult, config: TrainerConfig) -> bool:
    """Whether a result is of the whole job: each segment leaves one, but only the last has the last stage done."""
    last = config.spec.stages[-1].name
    done = any(stage.status.name == last and stage.status.phase is Phase.SUCCEEDED for stage in result.stages)
    return result.outcome == "Succeeded" and done


def scales(result: RunResult) -> dict[str, float]:
    """The share of its change that each stage handed over, by its name, where the manifest asks for one."""
    return {stage.status.name: stage.status.metrics[SCALE] for stage in result.stages if SCALE in stage.status.metrics}


def read_result(run: RunFolder) -> RunResult | None:
    """How the last process ended; None where it left nothing readable."""
    try:
        return RunResult.model_validate_json(run.result.read_bytes())
    except (OSError, ValueError):
        return None


def finished_before(config: TrainerConfig) -> RunResult | None:
    """The result of the whole job, where a process before this one has left it. Another manifest's counts for nothing."""
    run = RunFolder(Path(config.run_folder))
    result = read_result(run)
    if result is None or not finished(result, config):
        return None
    try:
        return result if json.loads(run.identity.read_bytes())["configHash"] == config.config_hash else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _newest_start(events: list[dict[str, Any]]) -> dict[str, Any]:
    """Where the newest process went on: it opens an arm a second time to publish it."""
    begun = [event for event in events if event["event"] == Event.START]
    return next((event for event in begun if process_of(event) == process_of(begun[-1])), {})


def _stage(
    run: RunFolder, uri: str, events: list[dict[str, Any]], index: int, stage: Stage, result: RunResult, *, trained: bool
) -> StageResult:
    key = stage_name(index, stage.name)
    begun = [event for event in events if event["event"] == Event.STAGE and event.get("stage") == key]
    commits = [event for event in events if event["event"] == Event.COMMIT and event.get("stage") == key]
    measured = [event for event in events if event["event"] == Event.EVALUATED and event.get("point") == key]
    handed = [event for event in events if event["event"] == Event.HAND_OVER and event.get("stage") == key]
    done = bool(handed) or (trained and bool(begun))
    ended = (handed or measured or commits)[-1:] if done or (result.stage == stage.name and result.outcome == "Failed") else []
    newest = max(commits, key=lambda event: (event["epoch"], event["step"], event["evaluation"] != "pending"), default=None)
    start = _newest_start(events)
    went_on = bool((start.get("start") or {}).get("stage") == key)
    return StageResult(
        status=StageStatus.model_validate(
            {
                "name": stage.name,
                "phase": Phase.SUCCEEDED if done else _phase(result, stage, bool(begun)),
                "attempts": len({process_of(event) for event in begun}),
                "startedAt": _time(begun[0]) if begun else None,
                "finishedAt": _time(ended[0]) if ended else None,
                "metrics": _metrics(run, key),
                "checkpoint": _checkpoint(run, uri, newest),
            }
        ),
        steps=newest["step"] if newest else 0,
        resumed_from_step=start.get("resumedFromStep") if went_on else None,
        steps_lost=start.get("stepsLost") if went_on else None,
    )


def _phase(result: RunResult, stage: Stage, begun: bool) -> Phase:
    if result.stage == stage.name and result.outcome == "Failed":
        return Phase.FAILED
    return Phase.RUNNING if begun else Phase.PENDING


def _metrics(run: RunFolder, key: str) -> dict[str, float]:
    """The last metrics of a stage that ended."""
    found = arms.resolved(run, key)
    return {name: float(value) for name, value in found["metrics"].items()} if found else {}


def _checkpoint(run: RunFolder, uri: str, event: dict[str, Any] | None) -> CheckpointStatus | None:
    if event is None:
        return None
    pending = "-pending" if event["evaluation"] == "pending" else ""
    path = run.epochs / f"{event['epoch']:04d}" / STAGES / event["stage"] / f"checkpoint-{event['step']:08d}{pending}"
    where = path.relative_to(run.root).as_posix()
    document = {"step": event["step"], "uri": f"{uri}/{where}", "sha256": event["sha256"], "verified": path.is_dir()}
    return CheckpointStatus.model_validate(document)


def _time(event: dict[str, Any]) -> str:
    """As Kubernetes writes it."""
    return datetime.fromtimestamp(event["at"], UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
