"""An operator of a later release takes over a job that runs: what its trainers are told must go on with the same run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finetune_api import constants as c
from finetune_api.plan import read_config
from finetune_api.v1alpha1.fine_tune_job import FineTuneJob, FineTuneJobSpec
from finetune_api.v1alpha1.stage import Stage
from finetune_api.v1alpha1.training import Training
from finetune_operator.case import Case
from finetune_operator.model import Create
from finetune_operator.policies.accepted import parse
from finetune_operator.policies.start import start
from finetune_operator.snapshot import snapshot_of
from finetune_trainer.checkpoint.identity import claim
from finetune_trainer.run_folder import RunFolder
from tests.unit.operator.worlds import Document, World, job


class LaterTraining(Training):
    """The next release's: a field more, and another default for one that there was."""

    momentum: float = 0.9
    weight_decay: float = 0.25


class LaterStage(Stage):
    training: LaterTraining = LaterTraining()


class LaterSpec(FineTuneJobSpec):
    stages: list[LaterStage]


class LaterJob(FineTuneJob):
    spec: LaterSpec


@pytest.fixture
def failed_once() -> World:
    """A job whose first attempt failed, and whose second is due."""
    world = World(job(spec__stages=[{**job()["spec"]["stages"][0], "training": {"maxSteps": 7}}]))
    world.settle(1)
    name = world.run()
    world.settle(1)
    world.end(name, 1)
    world.settle(1)
    world.seconds += 20
    return world


def next_attempt(world: World, model: type[FineTuneJob]) -> Document:
    """The Job that an operator with this model of a FineTuneJob makes next."""
    seen = world.observed()
    parsed = parse(seen)
    assert isinstance(parsed, FineTuneJob)
    document = {
        "apiVersion": c.API_VERSION,
        "kind": c.KIND,
        "metadata": {"name": "example", "namespace": "team-a"},
        "spec": seen.job["spec"],
    }
    snapshot = snapshot_of(seen.jobs[0])
    assert snapshot is not None
    step = start(Case.of(seen, model.model_validate(document), snapshot))
    assert step is not None
    return next(dict(action.manifest) for action in step.actions if isinstance(action, Create))


def told(batch_job: Document) -> str:
    text: str = batch_job["spec"]["template"]["metadata"]["annotations"][c.TRAINER_CONFIG_ANNOTATION]
    return text


def test_a_trainer_is_told_the_spec_as_its_author_wrote_it(failed_once: World) -> None:
    document = json.loads(told(next_attempt(failed_once, FineTuneJob)))
    assert document["spec"] == failed_once.job["spec"]
    assert "configHash" not in document


def test_a_second_operator_life_with_other_defaults_goes_on_with_the_same_run(failed_once: World, tmp_path: Path) -> None:
    (first,) = failed_once.jobs.values()
    second = next_attempt(failed_once, LaterJob)
    assert second["metadata"]["name"].endswith("-2")
    begun, goes_on = read_config(told(first)), read_config(told(second))
    assert goes_on.config_hash == begun.config_hash != ""
    assert goes_on.spec == begun.spec
    assert goes_on.spec.stages[0].training.weight_decay == Training().weight_decay
    run = RunFolder(tmp_path / "run")
    assert claim(run, begun) == claim(run, goes_on)
