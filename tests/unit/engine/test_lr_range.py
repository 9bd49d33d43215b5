"""A learning-rate range test: what it reads from curves that are known, and that it ends and keeps nothing on a tiny model."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetune_api.plan import Runtime, plan
from finetune_api.v1alpha1.fine_tune_job import FineTuneJob
from finetune_api.wire import TrainerConfig
from finetune_trainer.checkpoint.identity import claim
from finetune_trainer.checkpoint.signals import StopFlag
from finetune_trainer.data.prepare import prepare
from finetune_trainer.errors import Stopped, TrainerError
from finetune_trainer.lr_range import DOCUMENT, PICTURE, Asked, _same_before, measure, rates_between, smoothed, suggestion
from finetune_trainer.progress import NullReporter
from finetune_trainer.recipe import train
from finetune_trainer.run_folder import RunFolder
from tests.unit.models.cases import CAUSAL
from tests.unit.models.cases import job as planned

RATES = rates_between(1e-6, 1.0, 61)


def falling(steepest: float, lost: float) -> list[float]:
    """A loss that falls from 5 to 3 around a rate, and rises tenfold from another on."""
    return [5 - 2 / (1 + (steepest / rate) ** 2) + 10 * max(0.0, math.log10(rate / lost)) for rate in RATES]


def test_rates_rise_by_equal_factors_from_the_first_to_the_last() -> None:
    assert (RATES[0], RATES[-1]) == (1e-6, pytest.approx(1.0))
    assert np.allclose(np.diff(np.log(RATES)), np.log(1.0 / 1e-6) / 60)


@pytest.mark.parametrize(("steepest", "lost"), [(1e-4, 1e-2), (3e-3, 0.1)])
def test_the_steepest_rate_and_the_divergence_are_found(steepest: float, lost: float) -> None:
    found = suggestion(RATES, falling(steepest, lost))
    assert found.steepest == pytest.approx(steepest, rel=0.6)
    assert found.safe is not None and found.safe < lost
    assert found.diverged is not None and found.diverged > lost


@pytest.mark.parametrize("losses", [[5.0] * 61, [5 + index / 60 for index in range(61)]], ids=["flat", "rising"])
def test_nothing_is_suggested_where_the_loss_does_not_fall(losses: list[float]) -> None:
    assert suggestion(RATES, losses).steepest is None


def test_smoothing_neither_lags_nor_moves_the_mean() -> None:
    straight = [float(index) for index in range(40)]
    assert smoothed(straight)[10:30] == pytest.approx(straight[10:30], abs=1e-3)
    assert smoothed([2.0] * 9) == pytest.approx([2.0] * 9)


def job(folder: Path, model: Path, **training: Any) -> TrainerConfig:
    """Two stages on a tiny model, prepared."""
    for name, row in (
        ("texts", {"text": "bird {} is a small bird of the {}th tree"}),
        ("pairs", {"prompt": "Define: {}", "completion": "a bird"}),
    ):
        rows = (json.dumps({key: text.format(index, index) for key, text in row.items()}) + "\n" for index in range(24))
        (folder / f"{name}.jsonl").write_text("".join(rows))
    options = {"maxSteps": 3, "perDeviceTrainBatchSize": 4}
    method = {"type": "lora", "lora": {"r": 2}}
    stages = [
        {
            "name": "domain", "objective": "causalLanguageModeling", "data": {"train": [{"uri": "file://texts.jsonl"}]}, "method": method,
            "training": options | training, "handOver": "merge", "regularization": [{"type": "l2sp", "strength": 0.1}],
        },
        {"name": "task", "objective": "supervised", "data": {"train": [{"uri": "file://pairs.jsonl"}]}, "method": method, "training": options},
    ]  # fmt: skip
    document = {
        "apiVersion": "finetune.dev/v1alpha1", "kind": "FineTuneJob", "metadata": {"name": "birds"},
        "spec": {"model": {"uri": f"file://{model}"}, "stages": stages},
    }  # fmt: skip
    runtime = Runtime(run_folder=str(folder / "run/lr-range"), base_folder=str(folder), threads=1)
    config = plan(FineTuneJob.model_validate(document), runtime=runtime).segments[-1]
    Path(config.run_folder).mkdir(parents=True, exist_ok=True)
    prepare(config, NullReporter())
    return config


def test_a_stage_is_tested_and_nothing_of_it_is_kept(tmp_path: Path, tiny_llama: Path) -> None:
    config = job(tmp_path, tiny_llama)
    measure(config, Asked(low=1e-5, high=1.0, steps=40), reporter=NullReporter(), stop=StopFlag())
    folder = Path(config.run_folder)
    test = json.loads((folder / DOCUMENT).read_text())
    assert test["stage"] == "domain"
    assert len(test["rates"]) == len(test["losses"]) > 20, "it goes beyond the three steps of the stage"
    assert 1e-5 < test["steepest"] < 1.0
    assert (folder / PICTURE).read_text().startswith("<svg")
    assert not list(folder.rglob("checkpoint-*")) + list(folder.rglob("handover")) + list(folder.glob("artifacts"))


def test_a_later_stage_starts_from_what_the_jobs_run_has_handed_over(tmp_path: Path, tiny_llama: Path) -> None:
    config, run = job(tmp_path, tiny_llama), tmp_path / "run"
    own = config.model_copy(update={"run_folder": str(run)})
    claim(RunFolder(run), own)
    prepare(own, NullReporter())
    train(own, reporter=NullReporter(), stop=StopFlag())
    measure(config, Asked(stage="task", low=1e-5, high=0.1, steps=20, run=run), reporter=NullReporter(), stop=StopFlag())
    test = json.loads((Path(config.run_folder) / DOCUMENT).read_text())
    assert (test["stage"], len(test["rates"])) == ("task", 20)
    in_arms(run)
    measure(config, Asked(stage="task", low=1e-5, high=0.1, steps=12, run=run), reporter=NullReporter(), stop=StopFlag())
    assert len(json.loads((Path(config.run_folder) / DOCUMENT).read_text())["rates"]) == 12
    other = config.model_copy(update={"spec": config.spec.model_copy(update={"seed": 5})})
    with pytest.raises(TrainerError, match="has none of this manifest"):
        _start_of(other, run)


def in_arms(run: Path) -> None:
    """Make a run's folder that of a job with two seeds, of which the first has come so far."""
    (run / "arms/seed-42").mkdir(parents=True)
    (run / "epochs").rename(run / "arms/seed-42/epochs")
    place = RunFolder(run).identity
    document = json.loads(place.read_text())
    del document["spec"]["seed"]
    document["spec"] |= {"seeds": [42, 7]}
    document["spec"]["stages"][1]["data"]["validation"] = {"fraction": 0.2}
    place.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("recorded", "tested", "same"),
    [
        ({"seed": 4}, {"seed": 4}, True),
        ({}, {"seed": 42}, True),
        ({"seeds": [4, 5]}, {"seed": 4}, True),
        ({"seeds": [4, 5]}, {"seeds": [5, 4]}, False),
        ({"seeds": [4, 5]}, {}, False),
    ],
)
def test_a_run_is_the_jobs_own_where_its_first_seed_is(recorded: dict[str, Any], tested: dict[str, Any], same: bool) -> None:
    one, other = (planned(("lora", CAUSAL, None)).model_copy(update=seeds) for seeds in (recorded, tested))
    assert _same_before(one, other, 0) is same


def _start_of(config: TrainerConfig, run: Path) -> None:
    prepare(config, NullReporter())
    measure(config, Asked(stage="task", run=run), reporter=NullReporter(), stop=StopFlag())


def test_a_loss_that_is_lost_ends_the_test(tmp_path: Path, tiny_llama: Path) -> None:
    config = job(tmp_path, tiny_llama, optimizer="sgd", maxGradNorm=0)
    measure(config, Asked(low=1e-3, high=1e12, steps=40), reporter=NullReporter(), stop=StopFlag())
    test = json.loads((Path(config.run_folder) / DOCUMENT).read_text())
    assert len(test["rates"]) < 40
    assert test["diverged"] is not None
    assert all(math.isfinite(loss) for loss in test["losses"])


def test_a_stop_is_answered(tmp_path: Path, tiny_llama: Path) -> None:
    stop = StopFlag()
    stop.request("SIGTERM")
    with pytest.raises(Stopped):
        measure(job(tmp_path, tiny_llama), Asked(), reporter=NullReporter(), stop=stop)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        pytest.param(Asked(stage="tsk"), "no stage tsk, but domain, task", id="no such stage"),
        pytest.param(Asked(stage="task"), "starts from what domain hands over", id="nothing handed over yet"),
        pytest.param(Asked(low=1.0, high=0.1), "is not below", id="falling rates"),
    ],
)
def test_what_can_not_be_tested_is_said(tmp_path: Path, tiny_llama: Path, asked: Asked, words: str) -> None:
    with pytest.raises(TrainerError, match=words):
        measure(job(tmp_path, tiny_llama), asked, reporter=NullReporter(), stop=StopFlag())
