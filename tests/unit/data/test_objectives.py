"""From a row to tokens, and which of them are learned: read back as text, for each objective."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finetune_api.constants import Reason
from finetune_trainer.data.rows import RowSet
from finetune_trainer.errors import TrainerError
from finetune_trainer.tokenizer import load_tokenizer
from tests.tiny import CHATML_WITH_GENERATION

USER = {"role": "user", "content": "Hello?"}
ANSWER = {"role": "assistant", "content": "Hello."}
MORE = [{"role": "user", "content": "Bye?"}, {"role": "assistant", "content": "Bye bye."}]

NOTHING_BUT_TEXT = "{% for message in messages %}{{ message['content'] }} {% endfor %}"
REWRITES_HISTORY = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['role'] == 'assistant' and loop.last %}(thinks) {% endif %}{{ message['content'] }}<|im_end|>\n{% endfor %}"
)
STRICT = (
    "{% if messages[0]['role'] != 'user' %}{{ raise_exception('the first message must be of the user') }}{% endif %}" + NOTHING_BUT_TEXT
)


class Read:
    """A prepared stage, as text."""

    def __init__(self, job: Any, rows: list[Any], objective: str, **options: Any) -> None:
        prepared = job.prepare(job.file("rows.jsonl", rows), objective, **options)
        self.rows: RowSet = prepared.stages["a"].train
        self.tokenizer = load_tokenizer(prepared.tokenizer_folder, job.config("file://rows.jsonl", objective).spec)

    def text(self, i: int = 0) -> str:
        return str(self.tokenizer.decode(self.rows.tokens(i)))

    def learned(self, i: int = 0) -> str:
        return str(self.tokenizer.decode(self.rows.tokens(i)[self.rows.supervised(i)]))

    def prompt(self, i: int = 0) -> str:
        return str(self.tokenizer.decode(self.rows.tokens(i)[: self.rows.prompt_length(i)]))


def changed(model: Path, copy: Path, name: str, change: Callable[[dict[str, Any]], object]) -> Path:
    """A copy of a model with one JSON file changed."""
    shutil.copytree(model, copy)
    document = json.loads((copy / name).read_text())
    change(document)
    (copy / name).write_text(json.dumps(document))
    return copy


def chat(*messages: object) -> dict[str, object]:
    return {"messages": list(messages)}


def test_causal_documents_end_with_the_end_token_once(job: Any) -> None:
    read = Read(job, [{"text": "A cat."}, {"text": "A dog.<|im_end|>"}, {"text": " "}], "causalLanguageModeling")
    assert [read.text(0), read.text(1)] == ["A cat.<|im_end|>", "A dog.<|im_end|>"]
    assert read.learned(0) == "A cat.<|im_end|>"
    assert len(read.rows) == 2


def test_a_start_token_comes_once(make_job: Callable[[Path], Any], tiny_llama: Path, tmp_path: Path) -> None:
    start = {"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}
    frame = {
        "type": "TemplateProcessing",
        "single": [start, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [start, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|im_start|>": {"id": "<|im_start|>", "ids": [1], "tokens": ["<|im_start|>"]}},
    }
    model = changed(tiny_llama, tmp_path / "with-start", "tokenizer.json", lambda document: document.update(post_processor=frame))
    read = Read(make_job(model), [{"text": "A cat."}, {"text": "<|im_start|>A dog."}], "causalLanguageModeling")
    assert [read.text(0), read.text(1)] == ["<|im_start|>A cat.<|im_end|>", "<|im_start|>A dog.<|im_end|>"]


def test_truncation_keeps_the_beginning_and_is_counted(job: Any) -> None:
    read = Read(job, [{"text": "cat " * 30}, {"text": "cat"}], "causalLanguageModeling", training={"maxLength": 8})
    assert read.rows.lengths.tolist() == [8, 3]
    assert "im_end" not in read.text(0)
    report = job.prepare("file://rows.jsonl", training={"maxLength": 8}).report
    assert report.stages[0].train.truncated_share == 0.5
    assert any("50.0% of the rows are cut to maxLength" in warning for warning in report.warnings)


def test_masked_rows_have_their_frame_even_when_cut_and_special_tokens_are_not_maskable(bert_job: Any) -> None:
    read = Read(bert_job, [{"text": "a cat [MASK] a dog " * 9}], "maskedLanguageModeling", training={"maxLength": 16})
    assert read.text().startswith("[CLS] a cat [MASK]")
    assert read.text().endswith("[SEP]")
    assert "[" not in read.learned()
    assert int(read.rows.supervised_counts[0]) == int(read.rows.supervised(0).sum()) < 14


def test_classification_reads_labels_and_keeps_the_frame(bert_job: Any) -> None:
    rows = [{"text": "a cat " * 20, "label": "b"}, {"text": "a dog", "label": 7}, {"text": "a cow", "label": "a"}]
    read = Read(bert_job, rows, "classification", training={"maxLength": 8})
    assert [read.rows.label(i) for i in range(3)] == [2, 0, 1]
    assert read.text(0).endswith("[SEP]")
    assert read.learned(0) == ""
    stage = bert_job.prepare("file://rows.jsonl", "classification", labels=["b", "7", "a", "c"])
    assert stage.stages["a"].train.labels.tolist() == [0, 1, 2]
    assert stage.report.stages[0].train.classes == {"b": 1, "7": 1, "a": 1, "c": 0}
    assert any("no training row has the label 'c'" in warning for warning in stage.report.warnings)


@pytest.mark.parametrize("template", [None, CHATML_WITH_GENERATION], ids=["prefixes", "markers"])
@pytest.mark.parametrize("row", [{"prompt": "Hello?", "completion": "Hello."}, chat(USER, ANSWER), chat(USER, ANSWER, MORE[0])])
def test_a_pair_and_a_chat_learn_the_answer_and_its_end(job: Any, row: dict[str, Any], template: str | None) -> None:
    read = Read(job, [row], "supervised", model={"chatTemplate": template} if template else None)
    assert read.text() == "<|im_start|>user\nHello?<|im_end|>\n<|im_start|>assistant\nHello.<|im_end|>"
    assert read.learned() == "Hello.<|im_end|>"
    assert read.prompt() == "<|im_start|>user\nHello?<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize("template", [None, CHATML_WITH_GENERATION], ids=["prefixes", "markers"])
def test_every_answer_of_a_chat_is_learned_and_the_prompt_ends_before_the_last(job: Any, template: str | None) -> None:
    read = Read(job, [chat(USER, ANSWER, *MORE)], "supervised", model={"chatTemplate": template} if template else None)
    assert read.learned() == "Hello.<|im_end|>Bye bye.<|im_end|>"
    assert read.prompt().endswith("<|im_start|>user\nBye?<|im_end|>\n<|im_start|>assistant\n")


def test_a_template_without_end_tokens_gets_one(job: Any) -> None:
    read = Read(job, [chat(USER, ANSWER)], "supervised", model={"chatTemplate": NOTHING_BUT_TEXT})
    assert read.learned().endswith("<|im_end|>")
    assert read.learned().startswith("Hello.")


@pytest.mark.parametrize(
    ("template", "row", "reason", "says"),
    [
        (REWRITES_HISTORY, chat(USER, ANSWER, *MORE), Reason.CHAT_TEMPLATE_UNSUPPORTED, "rows.jsonl:1: the chat template renders messages 0 to 1 differently when more follows"),
        (STRICT, chat(ANSWER), Reason.DATA_INVALID, "rows.jsonl:1: the chat template refuses this chat: the first message must be of the user"),
        ("{% generation %}{% endgeneration %}x", chat(USER, ANSWER), Reason.CHAT_TEMPLATE_UNSUPPORTED, "the chat template marks nothing"),
        ("{% for", chat(USER, ANSWER), Reason.DATA_INVALID, "the chat template refuses this chat"),
    ],
)  # fmt: skip
def test_templates_that_are_refused(job: Any, template: str, row: dict[str, Any], reason: Reason, says: str) -> None:
    with pytest.raises(TrainerError) as caught:
        Read(job, [row], "supervised", model={"chatTemplate": template})
    assert says in str(caught.value)
    assert caught.value.reason is reason


def test_the_same_template_is_fine_for_one_turn(job: Any) -> None:
    template = REWRITES_HISTORY + "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    read = Read(job, [chat(USER, ANSWER)], "supervised", model={"chatTemplate": template})
    assert read.learned() == "(thinks) Hello.<|im_end|>"


@pytest.fixture
def plain_job(make_job: Callable[[Path], Any], tiny_llama: Path, tmp_path: Path) -> Any:
    """A job on the tiny Llama without a chat template."""
    return make_job(changed(tiny_llama, tmp_path / "plain", "tokenizer_config.json", lambda document: document.pop("chat_template")))


@pytest.mark.parametrize(
    ("prompt", "completion"), [("Define: cat", " A small animal."), ("Define: cat ", "A small animal."), ("Define: ca", "t is it")]
)
def test_without_a_template_pairs_are_joined_and_the_prompt_is_what_it_is_at_use(plain_job: Any, prompt: str, completion: str) -> None:
    read = Read(plain_job, [{"prompt": prompt, "completion": completion}], "supervised")
    assert read.text() == prompt + completion + "<|im_end|>"
    assert read.learned() == completion + "<|im_end|>"
    assert read.rows.tokens(0)[: read.rows.prompt_length(0)].tolist() == read.tokenizer.encode(prompt, add_special_tokens=False)


def test_an_answer_cut_to_nothing_is_dropped_and_counted(job: Any) -> None:
    rows = [{"prompt": "word " * 30, "completion": "ok"}, {"prompt": "a", "completion": "ok " * 30}]
    prepared = job.prepare(job.file("rows.jsonl", rows), "supervised", training={"maxLength": 24})
    source = prepared.report.stages[0].sources[0]
    assert (source.rows, source.dropped_unsupervised, source.truncated) == (1, 1, 1)
    assert any("50.0% of the rows are dropped" in warning for warning in prepared.report.warnings)
    train = prepared.stages["a"].train
    assert train.lengths.tolist() == [24]
    assert train.where(0) == "rows.jsonl:2"


def test_the_same_content_has_the_same_id_in_both_spellings(job: Any) -> None:
    read = Read(job, [{"prompt": "Hello?", "completion": "Hello."}, chat(USER, ANSWER), chat(USER, MORE[1])], "supervised")
    assert read.rows.id(0) == read.rows.id(1) != read.rows.id(2)
    assert read.rows.inputs[0] == read.rows.inputs[2]
