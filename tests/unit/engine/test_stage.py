"""A whole stage: what its options do, that it ends where it should, and that going on from a commit changes nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from finetune_api.constants import Reason
from finetune_api.wire import Activity
from finetune_trainer.checkpoint.lineage import CheckpointRef
from finetune_trainer.checkpoint.manifest import Evaluation
from finetune_trainer.checkpoint.signals import StopFlag
from finetune_trainer.checkpoint.snapshot import Snapshot, read_tensors
from finetune_trainer.checkpoint.state import digest
from finetune_trainer.checkpoint.store import CheckpointStore
from finetune_trainer.errors import Stopped, TrainerError
from tests.unit.engine.stage_run import Clock, Trained, stage, train
from tests.unit.guards.runs import stopped_and_resumed


def largest_difference(left: Trained, right: Trained) -> float:
    pairs = zip(left.model.parameters(), right.model.parameters(), strict=True)
    return max(float((mine - theirs).detach().abs().max()) for mine, theirs in pairs)


SGD = {"optimizer": "sgd", "learningRate": 0.5, "maxGradNorm": 0, "maxSteps": 3, "warmupSteps": 0}


@pytest.mark.parametrize(
    ("kind", "objective"), [("llama", "supervised"), ("bert", "maskedLanguageModeling"), ("bert classifier", "classification")]
)
def test_accumulation_of_eight_single_rows_equals_a_batch_of_eight(kind: str, objective: str, tmp_path: Path) -> None:
    batch = stage(SGD | {"perDeviceTrainBatchSize": 8}, objective=objective)
    accumulated = stage(SGD | {"perDeviceTrainBatchSize": 1, "gradientAccumulationSteps": 8}, objective=objective)
    one, eight = train(tmp_path / "one", batch, kind=kind), train(tmp_path / "eight", accumulated, kind=kind)
    assert largest_difference(one, eight) < 2e-6
    assert one.curve[-1]["loss"] == pytest.approx(eight.curve[-1]["loss"], abs=1e-6)
    untrained = train(tmp_path / "none", stage(SGD | {"learningRate": 1e-9, "perDeviceTrainBatchSize": 8}, objective=objective), kind=kind)
    assert largest_difference(one, untrained) > 1e-3, "the weights moved"


def test_packing_equals_single_rows_in_one_batch(tmp_path: Path) -> None:
    every = SGD | {"perDeviceTrainBatchSize": 40, "maxSteps": 2}
    assert largest_difference(train(tmp_path / "a", stage(every)), train(tmp_path / "b", stage(every | {"packing": True}))) < 2e-6


@pytest.mark.parametrize(
    ("training", "rates"),
    [
        ({"maxSteps": 4, "warmupSteps": 2}, [0.0, 0.5, 1.0, 0.5]),
        ({"maxSteps": 4, "warmupSteps": None, "warmupRatio": 0.3}, [0.0, 0.5, 1.0, 0.5]),
        ({"maxSteps": 3, "warmupSteps": 1, "lrSchedulerType": "constant"}, [0.0, 1.0, 1.0]),
        ({"maxSteps": 4, "warmupSteps": 0, "lrSchedulerType": "cosine"}, [1.0, (2 + math.sqrt(2)) / 4, 0.5, (2 - math.sqrt(2)) / 4]),
    ],
    ids=["linear", "a ratio is rounded up", "constant", "cosine"],
)
def test_the_schedule(training: dict[str, Any], rates: list[float], tmp_path: Path) -> None:
    trained = train(tmp_path, stage(training | {"learningRate": 1e-3}))
    assert [point["learningRate"] for point in trained.curve] == pytest.approx([1e-3 * rate for rate in rates])


@pytest.mark.parametrize(("optimizer", "kind"), [("adamw", "AdamW"), ("adafactor", "Adafactor"), ("sgd", "SGD")])
def test_each_optimizer_learns(optimizer: str, kind: str, tmp_path: Path) -> None:
    rate = 0.5 if optimizer == "sgd" else 1e-2
    options = {"optimizer": optimizer, "learningRate": rate, "maxSteps": 20, "warmupSteps": 0, "lrSchedulerType": "constant"}
    trained = train(tmp_path, stage(options | {"perDeviceTrainBatchSize": 40}))
    assert trained.curve[-1]["loss"] < trained.curve[0]["loss"] - 0.1
    assert kind.lower() in trained.outcome.resolved["optimizer"].replace("_", "")


def test_biases_and_norms_do_not_decay(tmp_path: Path) -> None:
    changed: dict[str, float] = {}

    def remember(net: nn.Module) -> None:
        changed.update({name: float(parameter.detach().norm()) for name, parameter in net.named_parameters()})

    options = SGD | {"learningRate": 1e-6, "weightDecay": 1.0, "maxSteps": 1, "optimizer": "adamw"}
    trained = train(tmp_path, stage(options | {"learningRate": 0.1, "maxGradNorm": 1e-12}), prepare=remember)
    after = {name: float(parameter.detach().norm()) for name, parameter in trained.model.named_parameters()}
    shrunk = {name for name in after if after[name] < 0.95 * changed[name]}
    assert shrunk == {name for name in after if "norm" not in name}


STOPPING = {"maxSteps": 40, "earlyStopping": {"patience": 2}, "learningRate": 0.3, "optimizer": "sgd", "warmupSteps": 0}


def test_early_stopping_ends_the_stage_and_best_weights_are_handed_over(tmp_path: Path) -> None:
    planned = stage(STOPPING | {"learningRate": 3.0}, evalSteps=2, handOverWeights="best")
    trained = train(tmp_path, planned, validated=True)
    losses = {point["step"]: point["evalLoss"] for point in trained.curve if "evalLoss" in point}
    best = min(losses, key=lambda step: losses[step])
    assert trained.outcome.stopped_early
    assert trained.outcome.steps == best + 4, "two evaluations after the best"
    assert (trained.outcome.step_used, trained.outcome.best) == (best, losses[best])
    kept = next(trained.folder.glob(f"checkpoint-{best:08d}"))
    assert trained.weights == digest(read_tensors(kept, "weights"))


def test_a_stage_ends_with_the_loss_of_its_last_steps_whatever_was_reported(tmp_path: Path) -> None:
    """The mean since the curve's point before: of a stage that ends, and of one that is ended between two points."""
    each = train(tmp_path / "each", stage({}))
    losses = [point["loss"] for point in each.curve]
    assert each.outcome.metrics == {"loss": losses[-1]}
    assert train(tmp_path / "few", stage({"loggingSteps": 4}), clock=Clock(0)).outcome.metrics == {"loss": (losses[4] + losses[5]) / 2}
    early = train(tmp_path / "early", stage(STOPPING | {"learningRate": 3.0, "loggingSteps": 40}, evalSteps=1), validated=True)
    assert early.outcome.stopped_early and not any("loss" in point for point in early.curve)
    assert early.outcome.metrics["loss"] > 0


def test_a_resumed_stage_ends_with_the_same_loss(tmp_path: Path) -> None:
    resumed, undisturbed = stopped_and_resumed(tmp_path, stage({"loggingSteps": 4}), 5)
    assert resumed.outcome.metrics == undisturbed.outcome.metrics == {"loss": undisturbed.curve[-1]["loss"]}


CONFIGURATIONS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "full, accumulation, dropout": ("llama", {"gradientAccumulationSteps": 2, "weightDecay": 0.1}, {}),
    "lora, packing": ("lora", {"packing": True, "maxSteps": 5}, {}),
    "masked, validation": ("bert", {"earlyStopping": {"patience": 5}}, {"objective": "maskedLanguageModeling", "evalSteps": 2}),
    "classes, adafactor": ("bert classifier", {"optimizer": "adafactor"}, {"objective": "classification", "evalSteps": 3}),
    # Undisturbed it ends after step 4, two evaluations after its best: only if what it knew of the best is carried over.
    "early stopping": ("llama", STOPPING | {"learningRate": 1.0}, {"evalSteps": 1}),
    "grouped by length, cosine": ("gpt2", {"groupByLength": True, "lrSchedulerType": "cosine"}, {}),
}


@pytest.mark.parametrize("step", [1, 3, 4])
@pytest.mark.parametrize("case", CONFIGURATIONS)
def test_a_stage_that_was_stopped_ends_in_the_same_bytes(case: str, step: int, tmp_path: Path) -> None:
    kind, training, fields = CONFIGURATIONS[case]
    planned = stage(training, **fields)

    def run(name: str, **options: Any) -> Trained:
        return train(tmp_path / name, planned, kind=kind, dropout=0.2, validated="evalSteps" in fields, **options)

    undisturbed, flag = run("undisturbed"), StopFlag()

    def signal_at(activity: Activity, report: dict[str, Any]) -> None:
        if activity is Activity.TRAIN and report["done"] == step:
            flag.request("SIGTERM")

    with pytest.raises(Stopped, match=f"after step {step}") as caught:
        run("stopped", on_report=signal_at, stop=flag)
    assert (caught.value.stage, caught.value.step) == ("task", step)
    resumed = run("stopped")
    assert (resumed.weights, resumed.samples) == (undisturbed.weights, undisturbed.samples)
    assert resumed.outcome.metrics == undisturbed.outcome.metrics
    timeless = [
        [{name: value for name, value in point.items() if name != "tokensPerSecond"} for point in run.curve]
        for run in (resumed, undisturbed)
    ]
    assert timeless[0] == timeless[1]


def test_a_signal_during_an_evaluation_aborts_it_and_it_is_done_again(tmp_path: Path) -> None:
    planned, flag = stage({"earlyStopping": {"patience": 2}}, evalSteps=2), StopFlag()

    def signal_in_evaluation(activity: Activity, report: dict[str, Any]) -> None:
        if activity is Activity.EVALUATE and report["done"] < report["total"]:
            flag.request("SIGTERM")

    with pytest.raises(Stopped, match="after step 2"):
        train(tmp_path / "stopped", planned, validated=True, on_report=signal_in_evaluation, stop=flag)
    pending = list((tmp_path / "stopped").rglob(f"checkpoint-*-{Evaluation.PENDING}"))
    assert [path.name for path in pending] == ["checkpoint-00000002-pending"]
    resumed, undisturbed = (train(tmp_path / name, planned, validated=True) for name in ("stopped", "undisturbed"))
    assert (resumed.weights, resumed.samples) == (undisturbed.weights, undisturbed.samples)
    assert resumed.outcome.best == undisturbed.outcome.best


@pytest.mark.parametrize(
    ("checkpoint", "saved"),
    [
        ({"everyMinutes": 1}, [3, 6, 8]),
        ({"everyMinutes": 1.5}, [4, 8]),
        ({"everyMinutes": 1, "everySteps": 5}, [3, 5, 8]),
        ({"everySteps": 5}, [5, 8]),
    ],
    ids=str,
)
def test_a_stage_is_saved_every_so_many_minutes(checkpoint: dict[str, Any], saved: list[int], tmp_path: Path) -> None:
    """A step takes 25 seconds; the minutes count from the last save, and the last step is always saved."""
    clock = Clock(tick=0.0)

    def step(activity: Activity, report: dict[str, Any]) -> None:
        clock.now += 25 if activity is Activity.TRAIN else 0

    train(tmp_path, stage({"maxSteps": 8}, checkpoint=checkpoint | {"keep": 10}), on_report=step, clock=clock)
    assert sorted(int(path.name.removeprefix("checkpoint-")) for path in tmp_path.rglob("checkpoint-*")) == saved


def test_a_stage_that_is_done_is_not_trained_again(tmp_path: Path) -> None:
    planned = stage({}, evalSteps=3)
    first = train(tmp_path, planned, validated=True)
    reports: list[Activity] = []
    again = train(tmp_path, planned, validated=True, on_report=lambda activity, fields: reports.append(activity))
    assert Activity.TRAIN not in reports
    assert (again.weights, again.samples, again.outcome) == (first.weights, first.samples, first.outcome)


def poison(net: nn.Module) -> None:
    with torch.no_grad():
        next(net.parameters()).fill_(math.nan)


def test_a_loss_that_is_nan_ends_the_stage_before_the_weights_change(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match="at step 1 the loss is nan; rows of the batch: 0000") as caught:
        train(tmp_path, stage({}), prepare=poison)
    assert (caught.value.reason, caught.value.stage, caught.value.step) == (Reason.LOSS_DIVERGED, "task", 1)
    assert not list(tmp_path.rglob("checkpoint-*"))


def test_a_metric_that_the_objective_does_not_have_is_refused(tmp_path: Path) -> None:
    planned = stage({"earlyStopping": {"metric": "eval_accuracy"}}, evalSteps=2)
    with pytest.raises(TrainerError, match=r"eval_accuracy is not measured .* eval_loss, eval_token_accuracy") as caught:
        train(tmp_path, planned, validated=True)
    assert caught.value.reason is Reason.INVALID_SPEC


def test_checkpointing_of_activations_changes_nothing_but_memory(tmp_path: Path) -> None:
    """What a layer computed is not kept, so the backward pass computes it once more."""
    computed = {False: 0, True: 0}

    def run(on: bool) -> Trained:
        def count(net: nn.Module) -> None:
            first = next(module for name, module in net.named_modules() if name.endswith("layers.0.mlp"))
            first.register_forward_pre_hook(lambda *_: computed.update({on: computed[on] + 1}))

        return train(tmp_path / str(on), stage({"gradientCheckpointing": on, "maxSteps": 3}), kind="lora", prepare=count)

    assert largest_difference(run(False), run(True)) < 1e-6
    assert computed[True] - computed[False] == 3, "once more in each step"


def test_autocast_ends_with_the_stage(tmp_path: Path) -> None:
    trained = train(tmp_path, stage({"mixedPrecision": "bf16"}), kind="lora")
    assert trained.outcome.resolved["mixedPrecision"]["autocast"] == "bfloat16"
    plain = train(tmp_path / "fp32", stage({}), kind="lora")
    assert 0 < largest_difference(trained, plain) < 0.01, "it computed in bf16"
    plain.model.load_state_dict(trained.model.state_dict())
    tokens = torch.arange(5, 15)[None]
    with torch.no_grad():
        assert torch.equal(trained.model.eval()(tokens).logits, plain.model.eval()(tokens).logits), "and does no longer"


class LateStore(CheckpointStore):
    """Reads the tensors at the last moment that the trainer leaves: when it is told to settle."""

    late: Callable[[], None] | None = None

    def commit(self, stage: str, step: int, snapshot: Snapshot, *, evaluation: Evaluation = Evaluation.NONE) -> None:
        self.late = partial(super().commit, stage, step, snapshot, evaluation=evaluation)

    def settle(self) -> None:
        late, self.late = self.late, None
        if late:
            late()

    def wait(self) -> CheckpointRef | None:
        self.settle()
        return super().wait()


def test_the_trainer_changes_nothing_before_a_save_has_settled(tmp_path: Path) -> None:
    """A checkpoint that is read as late as may be holds what one that is read at once holds."""
    planned = stage({"maxSteps": 4}, checkpoint={"everySteps": 1, "keep": 10})
    saved = {}
    for store in (CheckpointStore, LateStore):
        train(tmp_path / store.__name__, planned, store=store)
        found = sorted((tmp_path / store.__name__).glob("epochs/*/stages/*/checkpoint-*"))
        saved[store] = [[digest(read_tensors(path, file.stem)) for file in sorted(path.glob("*.safetensors"))] for path in found]
    assert len(saved[LateStore]) == 4
    assert saved[LateStore] == saved[CheckpointStore]
