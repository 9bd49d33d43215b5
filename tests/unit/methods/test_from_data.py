"""Starts from the stage's data: what defines EVA and CorDA, and that they are found once and begin again as they began."""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from finetune_api.constants import Reason
from finetune_api.v1alpha1.objective import Objective
from finetune_api.v1alpha1.stage import HandOver
from finetune_api.v1alpha1.support import Family
from finetune_api.wire import Activity
from finetune_trainer import handover
from finetune_trainer.checkpoint.signals import StopFlag
from finetune_trainer.checkpoint.state import read_course
from finetune_trainer.data.draws import check_start
from finetune_trainer.data.examples import StageExamples
from finetune_trainer.errors import Stopped, TrainerError
from finetune_trainer.export import adapter, verify
from finetune_trainer.methods.from_data import Begun
from finetune_trainer.methods.registry import method_of
from finetune_trainer.modeling.stage_model import StageModel, build_stage_model
from finetune_trainer.modeling.start import Start
from finetune_trainer.tokenizer import load_tokenizer
from tests.unit.engine import stage_run
from tests.unit.methods.table import UP, Q, base, layer, method, spec
from tests.unit.models.cases import FP32, LABELS, apart, job, logits, outputs, train

SUPERVISED, CLASSES = Objective.SUPERVISED, Objective.CLASSIFICATION
EVA: dict[str, Any] = {"r": 4, "alpha": 8, "initialization": "eva"}
CORDA: dict[str, Any] = {"r": 4, "alpha": 8, "initialization": "corda"}
KEPT: dict[str, Any] = {**CORDA, "cordaMode": "knowledgePreserved"}
KINDS = {"eva": EVA, "corda": CORDA, "corda, knowledge preserved": KEPT}


class Rows:
    """Twelve rows, the last four of them of the second source; counts how often it is asked. skewed: some tokens are far more frequent."""

    def __init__(self, *, size: int = 12, length: int = 24, skewed: bool = False) -> None:
        generator = np.random.default_rng(5)
        if skewed:
            self.every = [torch.from_numpy(generator.geometric(0.5, length - row) + 4) for row in range(size)]
        else:
            self.every = [torch.from_numpy(generator.integers(4, 900, max(1, length - row))) for row in range(size)]
        self.device = torch.device("cpu")
        self.asked = 0

    def drawn(self, count: int, *, replayed: bool, where: str) -> list[torch.Tensor]:
        self.asked += 1
        return (self.every[8:] if replayed else self.every[:8])[:count]


def begun(
    folder: Path, options: dict[str, Any], rows: Rows | None, *, start: Start | None = None, objective: Objective = SUPERVISED, **more: Any
) -> StageModel:
    planned = spec((method("lora", **options), objective, None))
    return build_stage_model(
        start=start or Start.base(folder),
        stage=planned.stages[0],
        spec=planned,
        labels=LABELS if objective is CLASSES else None,
        tokenizer=load_tokenizer(folder, planned),
        precision=FP32,
        seed=3,
        examples=rows,
        **more,
    )


def inputs_of(folder: Path, rows: list[torch.Tensor], name: str) -> list[torch.Tensor]:
    """What a module of the base sees: (tokens, inputs) of each row."""
    model, seen = base(folder).module, []
    with torch.no_grad():
        hook = model.get_submodule(name).register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0][0]))
        for row in rows:
            model.eval()(input_ids=row[None])
        hook.remove()
    return seen


def first(model: StageModel, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    return tuple(side["default"].weight.detach() for side in (layer(model, name).lora_A, layer(model, name).lora_B))  # type: ignore[return-value]


def ranks(model: StageModel) -> dict[str, int]:
    return {name: len(tensor) for name, tensor in model.trainable_state().items() if ".lora_A." in name}


def test_evas_rows_are_the_leading_directions_of_the_inputs(llama: Path) -> None:
    rows = Rows(skewed=True)
    model = begun(llama, {**EVA, "rho": 1}, rows)
    for name in (UP, Q, "model.layers.1.mlp.down_proj"):
        seen = torch.cat(inputs_of(llama, rows.every[:8], name)).double()
        wanted = torch.linalg.svd(seen - seen.mean(0), full_matrices=False).Vh[:4]
        a, b = first(model, name)
        assert not b.any(), "so that it begins at the base"
        cosines = (a.double() @ wanted.T).abs().diagonal()
        assert torch.allclose(cosines, torch.ones(4, dtype=torch.float64), atol=2e-2), name
    assert set(ranks(model).values()) == {4}


def test_ranks_go_where_directions_explain_most_and_the_budget_stays(llama: Path) -> None:
    model = begun(llama, EVA, Rows())
    found = ranks(model)
    assert sum(found.values()) == 4 * 14
    assert max(found.values()) <= 8
    assert len(set(found.values())) > 1
    assert {round(layer.scaling["default"], 6) for layer in _layers(model)} == {2.0}, "each update is on the scale of its own rank"
    summary = method_of(model.stage.method.type).course(model.module, model.stage, None).summary()  # type: ignore[misc, arg-type]
    assert (summary["rows"], summary["seed"], summary["begins"]) == (8, 3, "eva")
    assert summary["tokens"] == sum(range(17, 25))


def _layers(model: StageModel) -> list[Any]:
    from finetune_trainer.methods.stacks import lora_layers

    return list(lora_layers(model.module).values())


@pytest.mark.parametrize(("options", "replayed"), [(CORDA, False), (KEPT, True)], ids=["instruction previewed", "knowledge preserved"])
def test_corda_begins_in_the_weight_times_the_covariance(llama: Path, options: dict[str, Any], replayed: bool) -> None:
    rows = Rows()
    model = begun(llama, options, rows)
    for name in (UP, Q):
        weight = base(llama).module.get_submodule(name).weight.detach().double()
        seen = [one.double() for one in inputs_of(llama, rows.every[8:] if replayed else rows.every[:8], name)]
        scaled = [one / one.max().abs() for one in seen]
        covariance = sum(one.T @ one for one in scaled) / len(scaled)
        covariance = covariance + 0.01 * covariance.diagonal().mean() * torch.eye(len(covariance), dtype=torch.float64)
        u, s, v = torch.linalg.svd(weight @ covariance, full_matrices=False)
        part = slice(-4, None) if replayed else slice(0, 4)
        wanted = u[:, part] @ s[part].diag() @ v[part] @ torch.linalg.inv(covariance)
        a, b = (side.double() for side in first(model, name))
        assert torch.allclose(2 * b @ a, wanted, atol=1e-3 * float(wanted.abs().max())), "2 is the update's scale"
        residual = layer(model, name).get_base_layer().weight.detach().double()
        assert torch.allclose(residual + 2 * b @ a, weight, atol=1e-6)


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("more", [{}, {"dora": True}, {"rsLora": True, "rankPattern": {"q_proj": 6}}], ids=["plain", "dora", "rsLora"])
def test_it_begins_at_the_base_and_ends_as_a_plain_lora(llama: Path, options: dict[str, Any], more: dict[str, Any], tmp_path: Path) -> None:
    model = begun(llama, {**options, **more}, Rows())
    assert apart(logits(base(llama)), logits(model)) < 1e-5
    wanted = verify.Probe.of_tokens([[5, 6, 7, 8, 9]], pad=3)
    trained = wanted.logits(train(model).module)
    adapter.write_adapter(tmp_path, model, adapter.BaseReference(str(llama)), None)
    assert verify.apart(trained, wanted.logits(verify.load_adapter(tmp_path, llama, model))) < 1e-5
    merged = build_full(llama, handover.hand_over(model, HandOver.MERGE))
    assert verify.apart(trained, wanted.logits(merged.module)) < 1e-5


def build_full(folder: Path, start: Start) -> StageModel:
    from tests.unit.models.cases import build

    return build(start, job(("full", "causalLanguageModeling", None)), 0)


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("kind", [HandOver.CONTINUE, HandOver.STACK])
def test_the_next_stage_goes_on_with_it(llama: Path, options: dict[str, Any], kind: HandOver) -> None:
    model = train(begun(llama, options, Rows()))
    start, rows = handover.hand_over(model, kind), Rows()
    following = begun(llama, options, rows, start=start)
    assert apart(logits(model), logits(following)) < 1e-5
    assert rows.asked == (0 if kind is HandOver.CONTINUE else 1), "an adapter that trains on begins where it ended"
    told = method_of(following.stage.method.type).course(following.module, following.stage, None).told()  # type: ignore[misc, arg-type]
    assert ("rows" in told["began"]) is (kind is HandOver.STACK)


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_what_was_found_is_remembered_and_nothing_is_looked_at_again(llama: Path, options: dict[str, Any]) -> None:
    model = begun(llama, options, Rows())
    course = method_of(model.stage.method.type).course(model.module, model.stage, None)  # type: ignore[misc, arg-type]
    assert isinstance(course, Begun)
    again = begun(llama, options, None, remembered=course.tensors())
    state, own = dict(model.module.state_dict()), dict(again.module.state_dict())
    assert state.keys() == own.keys()
    assert all(torch.equal(state[name], own[name]) for name in state), "to the bit, the residual among them"
    assert all(torch.equal(model.taken[name], again.taken[name]) for name in model.taken)
    other = method_of(model.stage.method.type).course(again.module, again.stage, None)  # type: ignore[misc, arg-type]
    other.load(course.tensors(), course.document())
    assert other.summary() == course.summary()


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_a_stopped_stage_ends_in_the_same_bytes_and_looks_at_no_data_again(llama: Path, options: dict[str, Any], tmp_path: Path) -> None:
    options = {**options, "dropout": 0.1}
    planned = stage_run.stage({"maxSteps": 8, "learningRate": 1e-2}, method=method("lora", **options), checkpoint={"everySteps": 3})
    stop = StopFlag()

    def look(activity: Activity, fields: dict[str, Any]) -> None:
        if activity is Activity.TRAIN and fields.get("done") == 5:
            stop.request("SIGTERM")

    undisturbed = stage_run.train(tmp_path / "whole", planned, net=begun(llama, options, Rows()).module)
    with pytest.raises(Stopped):
        stage_run.train(tmp_path / "stopped", planned, net=begun(llama, options, Rows()).module, stop=stop, on_report=look)
    remembered = read_course(max((tmp_path / "stopped").glob("epochs/*/stages/*/checkpoint-*")))
    again = stage_run.train(tmp_path / "stopped", planned, net=begun(llama, options, None, remembered=remembered).module)
    assert again.weights == undisturbed.weights, "the residual among them"
    assert again.outcome.resolved["course"] == undisturbed.outcome.resolved["course"]


def test_the_same_rows_give_the_same_bytes_and_the_random_state_is_left_alone(llama: Path) -> None:
    torch.manual_seed(5)
    one = begun(llama, EVA, Rows()).trainable_state()
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(1))
    other = begun(llama, EVA, Rows()).trainable_state()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("options", [EVA, CORDA], ids=["eva", "corda"])
def test_it_works_where_weights_are_turned_and_a_pooler_sees_one_token(family: Any, options: dict[str, Any]) -> None:
    ids = torch.arange(4, 36).reshape(2, 16)
    for architecture, objective in ((Family.GPT2, SUPERVISED), (Family.BERT, CLASSES)):
        folder = family(architecture)
        model = begun(folder, options, Rows(), objective=objective)
        if objective is SUPERVISED:
            assert apart(outputs(base(folder).module, ids).logits, logits(model)) < 1e-5
        assert ranks(model)


@pytest.mark.parametrize(
    ("options", "rows", "reason", "says"),
    [
        (EVA, None, Reason.INVALID_SPEC, "begins from rows of the stage, and there are none here"),
        (CORDA, None, Reason.INVALID_SPEC, "begins from rows of the stage, and there are none here"),
        ({**EVA, "r": 30}, Rows(), Reason.INVALID_SPEC, "could get rank 60, 2 times its own"),
        ({**EVA, "r": 16, "rho": 4}, Rows(), Reason.INVALID_SPEC, "write a lower r or rho"),
    ],
)
def test_what_it_cannot_begin_from_is_refused(llama: Path, options: dict[str, Any], rows: Rows | None, reason: Reason, says: str) -> None:
    with pytest.raises(TrainerError) as caught:
        begun(llama, options, rows)
    assert caught.value.reason is reason
    assert says in str(caught.value)


def test_directions_that_do_not_settle_end_in_a_message(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finetune_trainer.methods.from_data.MOST_PASSES", 0)
    with pytest.raises(TrainerError, match="have not settled after 0 passes over 8 rows"):
        begun(llama, EVA, Rows())


class Parts:
    """As a RowSet: five rows, of two sources."""

    sources = np.array([0, 0, 1, 0, 1])
    lengths = np.full(5, 3)

    def tokens(self, row: int) -> np.ndarray[Any, Any]:
        return np.full(3, row, np.int32)


def test_rows_are_drawn_by_the_seed_from_the_sources_that_are_meant() -> None:
    planned = job(("lora", "supervised", None)).stages[0]
    (own,) = planned.data.train
    examples = StageExamples(Parts(), [own, own.model_copy(update={"replay": True})], 7, torch.device("cpu"))  # type: ignore[arg-type]
    kept = [int(row[0]) for row in examples.drawn(9, replayed=True, where="x")]
    assert kept == [2, 4]
    two = [int(row[0]) for row in examples.drawn(2, replayed=False, where="x")]
    assert two == [int(row[0]) for row in examples.drawn(2, replayed=False, where="x")]
    assert set(two) < {0, 1, 3}
    with pytest.raises(TrainerError, match="replay sources have no row"):
        dataclasses.replace(examples, sources=[own, own]).drawn(2, replayed=True, where="x")


@pytest.mark.parametrize(
    ("options", "sources", "says"),
    [
        (EVA, [None, True], ""),
        ({**EVA, "initializationRows": 2}, [None, True], "6 tokens in 2 rows cannot show 8 directions: write more initializationRows"),
        ({**EVA, "r": 100}, [None, True], "in 3 rows cannot show 200 directions: add rows to data.train, or a lower r or rho"),
        (KEPT, [None, True], ""),
        (KEPT, [None, None], "the stage's replay sources have no row to look at before the first step"),
        (CORDA, [True, True], "the stage's training data have no row to look at before the first step"),
        ({"r": 4}, [True, True], ""),
    ],
)
def test_rows_that_show_too_little_are_refused_before_anything_is_loaded(
    options: dict[str, Any], sources: list[bool | None], says: str
) -> None:
    planned = spec((method("lora", **options), SUPERVISED, None)).stages[0]
    own = [planned.data.train[0].model_copy(update={"replay": replay}) for replay in sources]
    stage = planned.model_copy(update={"data": planned.data.model_copy(update={"train": own})})
    expected = pytest.raises(TrainerError, match=says) if says else nullcontext()
    with expected as caught:
        check_start(stage, Parts(), 1, "spec.stages[0]")  # type: ignore[arg-type]
    assert caught is None or caught.value.where == "spec.stages[0].method.lora.initialization"
