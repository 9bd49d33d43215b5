"""Suites measured on tiny real models, against the same figures worked out the plain way: one row at a time, from full logits."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoTokenizer

from finetune_api.constants import Reason
from finetune_api.v1alpha1.evaluation import Metric, Samples, Suite
from finetune_api.wire import Activity
from finetune_trainer.errors import Stopped, TrainerError
from finetune_trainer.evaluation.generation import complete, evaluating, own_lines
from finetune_trainer.evaluation.point import Head, Setting, measure_point
from finetune_trainer.evaluation.records import RowRecords
from finetune_trainer.evaluation.results import PointResult, PointSamples, point_path, read, rows_path, samples_path
from finetune_trainer.evaluation.suites import EvaluationAborted, Measured, evaluate
from finetune_trainer.progress import NullReporter
from tests.unit.evaluation.rows import MemoryRows, MemorySuite

CPU = torch.device("cpu")


def suite(objective: str, *metrics: str, **fields: Any) -> Suite:
    document = {"name": "held-out", "objective": objective, "data": {"uri": "file://x.jsonl"}, "metrics": list(metrics), **fields}
    return Suite.model_validate(document)


def measure(model: Any, tokenizer: Any, spec: Suite, rows: MemoryRows, **options: Any) -> Measured:
    defaults: dict[str, Any] = {
        "batch_size": 3, "device": CPU, "seed": 7, "reporter": NullReporter(), "should_stop": lambda: False, "labels": None,
    }  # fmt: skip
    given = defaults | options
    return evaluate(model, tokenizer, spec, MemorySuite(rows, given.pop("labels")), **given)


def random_rows(count: int = 7, *, prompts: bool = False, classes: int = 0) -> MemoryRows:
    generator = np.random.default_rng(3)
    lists = [generator.integers(5, 1000, int(generator.integers(6, 20))).tolist() for _ in range(count)]
    return MemoryRows(
        lists,
        prompts=[len(tokens) // 2 for tokens in lists] if prompts else [],
        classes=[index % classes for index in range(count)] if classes else [],
    )


@pytest.fixture(scope="module")
def tokenizer(tiny_llama: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_llama)


@pytest.fixture
def llama(tiny_llama: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_llama)


@pytest.fixture(scope="module")
def bert_tokenizer(tiny_bert: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_bert)


@pytest.fixture
def bert(tiny_bert: Path) -> Any:
    return AutoModelForMaskedLM.from_pretrained(tiny_bert)


@pytest.fixture
def classifier(tiny_bert: Path) -> Any:
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_pretrained(tiny_bert, num_labels=3)


def plain_nll(model: Any, rows: MemoryRows) -> tuple[float, int, int]:
    """Sum of NLL, predicted tokens, likeliest ones: one row at a time, from full logits."""
    total, count, right = 0.0, 0, 0
    with evaluating(model):
        for index in range(len(rows)):
            tokens = torch.tensor([rows.lists[index]])
            scores = torch.log_softmax(model(tokens, use_cache=False).logits[0].double(), dim=-1)
            for place in range(1, tokens.shape[1]):
                if rows.supervised(index)[place]:
                    total -= float(scores[place - 1, tokens[0, place]])
                    right += int(scores[place - 1].argmax() == tokens[0, place])
                    count += 1
    return total, count, right


@pytest.mark.parametrize("objective", ["causalLanguageModeling", "supervised"])
@pytest.mark.parametrize("wrapped", [False, True], ids=["plain", "lora"])
def test_language_model_figures_are_the_plain_ones(llama: Any, tokenizer: Any, objective: str, wrapped: bool) -> None:
    model = get_peft_model(llama, LoraConfig(target_modules=["q_proj"], init_lora_weights=False)) if wrapped else llama
    rows = random_rows(prompts=objective == "supervised")
    result = measure(model, tokenizer, suite(objective, "loss", "perplexity", "tokenAccuracy"), rows).result
    nll, count, right = plain_nll(model, rows)
    assert result.tokens == count
    assert result.estimates[Metric.LOSS].value == pytest.approx(nll / count, abs=1e-5)
    assert result.estimates[Metric.PERPLEXITY].value == pytest.approx(np.exp(nll / count), rel=1e-5)
    assert result.estimates[Metric.TOKEN_ACCURACY].value == pytest.approx(right / count)


@pytest.mark.parametrize("batch_size", [1, 2, 7, 50])
def test_the_batch_size_changes_nothing(llama: Any, tokenizer: Any, batch_size: int) -> None:
    spec, rows = suite("causalLanguageModeling", "loss"), random_rows()
    alone = measure(llama, tokenizer, spec, rows, batch_size=1).records
    together = measure(llama, tokenizer, spec, rows, batch_size=batch_size).records
    np.testing.assert_allclose(together.nll, alone.nll, rtol=1e-5)
    np.testing.assert_array_equal(together.tokens, alone.tokens)


def test_masks_follow_the_seed_and_not_the_batch(bert: Any, bert_tokenizer: Any) -> None:
    spec, rows = suite("maskedLanguageModeling", "loss"), random_rows()
    first = measure(bert, bert_tokenizer, spec, rows, batch_size=1).records
    again = measure(bert, bert_tokenizer, spec, rows, batch_size=4).records
    other = measure(bert, bert_tokenizer, spec, rows, seed=8).records
    np.testing.assert_allclose(again.nll, first.nll, rtol=1e-4)
    assert (first.tokens >= 1).all()
    assert not np.allclose(other.nll, first.nll)


def test_classification_counts_rows(classifier: Any, bert_tokenizer: Any) -> None:
    rows = random_rows(9, classes=3)
    measured = measure(classifier, bert_tokenizer, suite("classification", "accuracy", "loss", "f1Macro"), rows, labels=["a", "b", "c"])
    with evaluating(classifier):
        logits = torch.cat([classifier(torch.tensor([tokens])).logits for tokens in rows.lists])
    accuracy = float((logits.argmax(-1) == torch.tensor(rows.classes)).float().mean())
    loss = float(torch.nn.functional.cross_entropy(logits, torch.tensor(rows.classes)))
    assert measured.result.tokens == 9
    assert measured.result.estimates[Metric.ACCURACY].value == pytest.approx(accuracy)
    assert measured.result.estimates[Metric.LOSS].value == pytest.approx(loss, abs=1e-5)
    np.testing.assert_array_equal(measured.records.predicted, logits.argmax(-1).numpy())


def test_labels_are_matched_by_name_not_by_place(classifier: Any, bert_tokenizer: Any) -> None:
    spec = suite("classification", "accuracy", "loss")
    rows = random_rows(9, classes=3)
    turned = replace(rows, classes=[2 - label for label in rows.classes])
    straight = measure(classifier, bert_tokenizer, spec, rows, labels=["a", "b", "c"], head_labels=["a", "b", "c"])
    reordered = measure(classifier, bert_tokenizer, spec, turned, labels=["c", "b", "a"], head_labels=["a", "b", "c"])
    assert straight.result == reordered.result
    with pytest.raises(TrainerError, match="knows the labels a, b, c, and not zebra") as caught:
        measure(classifier, bert_tokenizer, spec, rows, labels=["a", "b", "zebra"], head_labels=["a", "b", "c"])
    assert caught.value.reason is Reason.LABEL_UNKNOWN


def greedy_by_hand(model: Any, prompt: list[int], limit: int, ends: set[int]) -> list[int]:
    tokens = list(prompt)
    with evaluating(model):
        for _ in range(limit):
            following = int(model(torch.tensor([tokens]), use_cache=False).logits[0, -1].argmax())
            if following in ends:
                break
            tokens.append(following)
    return tokens[len(prompt) :]


def test_exact_match_generates_what_greedy_search_by_hand_does(llama: Any, tokenizer: Any) -> None:
    """References are the model's own greedy continuations for even rows, and something else for odd ones; prompts differ in length."""
    prompts = [tokens[: 4 + index] for index, tokens in enumerate(random_rows(6).lists)]
    llama.generation_config.repetition_penalty = 5.0  # a file beside the weights must not change the figure
    written = [greedy_by_hand(llama, prompt, 5, {tokenizer.eos_token_id}) for prompt in prompts]
    answers = [answer if index % 2 == 0 else [900, 901] for index, answer in enumerate(written)]
    rows = MemoryRows(
        [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)], prompts=[len(prompt) for prompt in prompts]
    )
    measured = measure(llama, tokenizer, suite("supervised", "exactMatch", maxNewTokens=5), rows)
    assert measured.records.exact.tolist() == [1, 0, 1, 0, 1, 0]
    assert measured.result.estimates[Metric.EXACT_MATCH].value == 0.5
    assert "greedy" in (measured.result.note or "")


def test_the_model_is_left_as_it_was(llama: Any, tokenizer: Any) -> None:
    llama.train()
    llama.model.layers[0].eval()  # a frozen part, such as a stacked adapter
    llama.config.use_cache = False
    before = [module.training for module in llama.modules()]
    measure(llama, tokenizer, suite("supervised", "loss", "exactMatch", maxNewTokens=2), random_rows(3, prompts=True))
    assert [module.training for module in llama.modules()] == before
    assert llama.config.use_cache is False
    assert torch.is_grad_enabled()
    assert all(parameter.requires_grad for parameter in llama.parameters())


def after(calls: int) -> Callable[[], bool]:
    left = [calls]

    def should_stop() -> bool:
        left[0] -= 1
        return left[0] < 0

    return should_stop


def test_it_stops_between_two_batches_and_leaves_the_mode(llama: Any, tokenizer: Any) -> None:
    llama.train()
    with pytest.raises(EvaluationAborted) as caught:
        measure(llama, tokenizer, suite("causalLanguageModeling", "loss"), random_rows(), should_stop=after(1))
    assert isinstance(caught.value, Stopped)
    assert str(caught.value) == "while suite held-out was measured; nothing is lost, it is measured again from its beginning"
    assert llama.training


def test_progress_counts_rows_and_generations(llama: Any, tokenizer: Any) -> None:
    class Heard:
        def __init__(self) -> None:
            self.reports: list[tuple[Activity, Any]] = []

        def report(self, activity: Activity, **fields: Any) -> None:
            self.reports.append((activity, (fields["done"], fields["total"], fields["unit"], fields["suite"])))

    heard = Heard()
    spec = suite("supervised", "loss", "exactMatch", maxNewTokens=1)
    measure(llama, tokenizer, spec, random_rows(4, prompts=True), batch_size=2, reporter=heard)
    assert heard.reports == [(Activity.EVALUATE, (done, 8, "rows", "held-out")) for done in (2, 4, 6, 8)]


def test_a_loss_that_is_no_number_names_the_suite_and_the_row(llama: Any, tokenizer: Any) -> None:
    with torch.no_grad():
        llama.model.norm.weight.fill_(float("nan"))
    with pytest.raises(TrainerError, match="evaluation suite held-out: the loss of 7 of 7 rows is no finite number") as caught:
        measure(llama, tokenizer, suite("causalLanguageModeling", "loss"), random_rows())
    assert caught.value.reason is Reason.LOSS_DIVERGED


def test_bits_per_byte_stand_beside_perplexity_of_an_extended_tokenizer(llama: Any, tokenizer: Any) -> None:
    text = "The oak is a large tree of the beech family. " * 2
    rows = MemoryRows([tokenizer(text)["input_ids"]])
    spec = suite("causalLanguageModeling", "perplexity")
    measured = measure(llama, tokenizer, spec, rows, extended_tokenizer=True)
    predicted = tokenizer.decode(rows.lists[0][1:], skip_special_tokens=True)
    assert measured.result.bits_per_byte is not None
    assert measured.result.bits_per_byte.value == pytest.approx(float(measured.records.nll[0]) / np.log(2) / len(predicted.encode()))
    assert measure(llama, tokenizer, spec, rows).result.bits_per_byte is None


def test_a_point_is_written_with_its_rows_samples_and_paired_changes(llama: Any, tokenizer: Any, tmp_path: Path) -> None:
    spec = suite("supervised", "loss")
    absent = suite("classification", "accuracy").model_copy(update={"name": "classes"})
    setting = Setting(
        folder=tmp_path,
        suites=[spec, absent],
        prepared=lambda name: MemorySuite(random_rows(5, prompts=True)),
        tokenizer=tokenizer,
        device=CPU,
        batch_size=2,
        seed=7,
        samples=Samples.model_validate({"count": 2, "maxNewTokens": 4}),
    )

    def head(wanted: Suite) -> Head | str:
        return "no stage has trained a classification head yet" if wanted.name == "classes" else Head(llama)

    def point(name: str, stage: str | None) -> PointResult:
        return measure_point(setting, name, stage, head, reporter=NullReporter(), should_stop=lambda: False)

    base = point("base", None)
    with torch.no_grad():
        llama.model.norm.weight.mul_(1.05)
    tuned = point("0-task", "task")
    assert base.suites[0].changes == {}
    assert tuned.suites[1].not_applicable == "no stage has trained a classification head yet"
    change = tuned.suites[0].changes[Metric.LOSS]
    assert change.value == pytest.approx(tuned.suites[0].estimates[Metric.LOSS].value - base.suites[0].estimates[Metric.LOSS].value)
    assert change.low <= change.value <= change.high
    assert read(point_path(tmp_path, "0-task"), PointResult) == tuned
    assert len(RowRecords.load(rows_path(tmp_path, "0-task", "held-out"))) == 5
    samples = read(samples_path(tmp_path, "base"), PointSamples)
    assert samples is not None
    assert [sample.row for sample in samples.samples] == [f"{index:016x}" for index in range(2)]
    assert json.loads(point_path(tmp_path, "base").read_text())["point"] == "base"


def test_a_completion_ends_where_the_positions_do(llama: Any, tokenizer: Any) -> None:
    """A prompt near the model's limit gets a shorter completion; its neighbours get theirs in full, as if it were not there."""
    llama.config.max_position_embeddings = 20
    short, long = list(range(10, 18)), list(range(10, 29))  # 8 and 19 tokens: room for 13 and for 2
    with evaluating(llama):
        together = complete(llama, tokenizer, [short, long], max_new_tokens=6, device=CPU)
        alone = [complete(llama, tokenizer, [prompt], max_new_tokens=limit, device=CPU)[0] for prompt, limit in ((short, 6), (long, 2))]
    assert together == alone


def test_a_completion_ends_at_the_turn_s_own_end_token(llama: Any, tokenizer: Any) -> None:
    prompt = random_rows(1).lists[0]
    written = greedy_by_hand(llama, prompt, 6, {tokenizer.eos_token_id})
    with evaluating(llama):
        cut = complete(llama, tokenizer, [prompt], max_new_tokens=6, device=CPU, end_tokens=[written[2]])
    assert cut == [tokenizer.decode(written[: written.index(written[2]) + 1], skip_special_tokens=True)]


@pytest.mark.parametrize(
    ("texts", "own"),
    [
        (
            ["system\nBe brief.\nuser\nDefine: otter\nassistant", "system\nBe brief.\nuser\nDefine: oak\nassistant"],
            ["Define: otter", "Define: oak"],
        ),
        (["a\nx\ny\nb", "a\nz\nb"], ["x\ny", "z"]),
        (["only one\nprompt"], ["only one\nprompt"]),
        (["the same", "the same"], ["the same", "the same"]),
        (["a\nb", "a\nc\nb"], ["a\nb", "a\nc\nb"]),
        ([], []),
    ],
    ids=["a template", "several lines", "one", "equal", "nothing would be left", "none"],
)
def test_samples_show_what_differs(texts: list[str], own: list[str]) -> None:
    assert own_lines(texts) == own
