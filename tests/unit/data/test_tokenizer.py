"""The tokenizer of a job: the manifest's changes, the choice of a pad token, and what is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finetune_api.constants import Reason
from finetune_api.v1alpha1.fine_tune_job import FineTuneJobSpec
from finetune_trainer.errors import TrainerError
from finetune_trainer.tokenizer import choose_padding, end_tokens, fingerprint, load_tokenizer


def spec(*, template: str | None = None, **tokenizer: Any) -> FineTuneJobSpec:
    stage = {
        "name": "a",
        "objective": "causalLanguageModeling",
        "data": {"train": [{"uri": "file://x.jsonl"}]},
        "method": {"type": "full"},
    }
    model: dict[str, Any] = {"uri": "file:///model"}
    if template is not None:
        model["chatTemplate"] = template
    return FineTuneJobSpec.model_validate({"model": model, "tokenizer": tokenizer, "stages": [stage]})


@pytest.fixture
def llama(tiny_llama: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_llama, tmp_path / "llama"))


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def test_the_manifest_changes_the_tokenizer(llama: Path) -> None:
    plain = load_tokenizer(llama, spec())
    changed = load_tokenizer(llama, spec(template="{{ messages[0].content }}", addTokens=["<ticket>"]))
    assert len(changed) == len(plain) + 1
    assert len(changed.encode("<ticket>", add_special_tokens=False)) == 1
    assert changed.chat_template == "{{ messages[0].content }}"
    assert (plain.pad_token, plain.padding_side) == ("<|pad|>", "right")
    assert fingerprint(plain) != fingerprint(changed)
    assert fingerprint(plain) == fingerprint(load_tokenizer(llama, spec()))


def test_a_limit_that_is_baked_into_the_file_does_not_cut_rows(llama: Path) -> None:
    truncation = {"max_length": 4, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
    edit(llama / "tokenizer.json", lambda document: document.update(truncation=truncation))
    assert len(load_tokenizer(llama, spec()).backend_tokenizer.encode("a b c d e f g h i j k l m n o p").ids) > 4


@pytest.mark.parametrize(
    ("vocabulary", "own", "end", "wanted", "token", "why"),
    [
        (["<x>", "<p>", "</s>"], "<p>", "</s>", "<x>", "<x>", "spec.tokenizer.padToken"),
        (["<p>", "<unused0>", "</s>"], "<p>", "</s>", None, "<p>", "the model's"),
        (
            ["<|reserved_special_token_11|>", "<|reserved_special_token_0|>", "</s>"],
            None,
            "</s>",
            None,
            "<|reserved_special_token_0|>",
            "unused",
        ),
        (["<unused7>", "</s>"], None, "</s>", None, "<unused7>", "unused"),
        (["[unused1]", "[PAD]"], None, None, None, "[PAD]", "unused"),
        (["a", "</s>"], None, "</s>", None, "</s>", "masked by position"),
    ],
)
def test_padding(vocabulary: list[str], own: str | None, end: str | None, wanted: str | None, token: str, why: str) -> None:
    chosen = choose_padding(vocabulary, own=own, end=end, wanted=wanted)
    assert chosen.token == token
    assert why in chosen.why


@pytest.mark.parametrize(
    ("wanted", "reason", "says"),
    [("<pat>", Reason.INVALID_SPEC, "spec.tokenizer.padToken: '<pat>' is not in"), (None, Reason.MODEL_UNSUPPORTED, "no end token")],
)
def test_padding_that_is_refused(wanted: str | None, reason: Reason, says: str) -> None:
    with pytest.raises(TrainerError, match=says) as caught:
        choose_padding(["a"], own=None, end=None, wanted=wanted)
    assert caught.value.reason is reason


def test_a_vocabulary_larger_than_the_embeddings_is_refused(llama: Path) -> None:
    edit(llama / "config.json", lambda document: document.update(vocab_size=1000))
    with pytest.raises(TrainerError, match=r"token\(s\) without an embedding.*the model has 1000 rows") as caught:
        load_tokenizer(llama, spec())
    assert caught.value.reason is Reason.MODEL_UNSUPPORTED


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json"])
def test_a_broken_file_is_named(llama: Path, name: str) -> None:
    (llama / name).write_text("{")
    with pytest.raises(TrainerError, match=r"tokenizer|config\.json") as caught:
        load_tokenizer(llama, spec())
    assert caught.value.reason is Reason.MODEL_UNSUPPORTED


def test_end_tokens_are_the_tokenizers_and_those_of_the_generation_config(llama: Path) -> None:
    edit(llama / "generation_config.json", lambda document: document.update(eos_token_id=[2, 9]))
    assert end_tokens(llama, load_tokenizer(llama, spec())) == [2, 9]


def test_loading_needs_no_torch(tiny_llama: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from finetune_trainer.tokenizer import own_tokenizer; "
        f"own_tokenizer(Path({str(tiny_llama)!r})); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
