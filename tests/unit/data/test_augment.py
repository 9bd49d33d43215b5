"""Augmented copies: what each kind changes, that a seed fixes them, and that they stay on the side of the row that they are of."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from finetune_api.constants import Reason
from finetune_api.v1alpha1.data import Augmentation, AugmentationType
from finetune_api.v1alpha1.stage import Objective
from finetune_trainer.data.augment import Augmenter, changed
from finetune_trainer.errors import TrainerError

TEXT = "The quick brown fox  jumps over\nthe lazy dog and runs away"


def every(kind: str, probability: float, text: str = TEXT, seed: int = 0) -> str:
    return changed(text, AugmentationType(kind), probability, random.Random(seed))


@pytest.mark.parametrize("kind", list(AugmentationType))
def test_a_kind_changes_words_as_often_as_asked_and_nothing_else(kind: str) -> None:
    words = " ".join(f"word{index}" for index in range(4000))
    for probability in (0.1, 0.5):
        found = every(kind, probability, words).split(" ")
        if kind == "wordDrop":
            changed_share = 1 - len(found) / 4000
        else:
            pairs = zip(found, words.split(" "), strict=True)
            changed_share = sum(one != other for one, other in pairs) / 4000
        low, high = {"wordSwap": (0.9, 2.0), "typos": (0.85, 1.0)}.get(kind, (0.9, 1.1))
        assert low * probability < changed_share < high * probability + 0.02


@pytest.mark.parametrize(
    ("kind", "holds"),
    [
        ("typos", lambda text: [abs(len(one) - len(other)) <= 1 for one, other in zip(text.split(), TEXT.split(), strict=True)]),
        ("case", lambda text: [text.lower() == TEXT.lower()]),
        ("wordDrop", lambda text: [set(text.split()) <= set(TEXT.split()), len(text.split()) < 12]),
        ("wordSwap", lambda text: [sorted(text.split()) == sorted(TEXT.split())]),
    ],
)
def test_what_a_kind_leaves(kind: str, holds: Any) -> None:
    for seed in range(20):
        text = every(kind, 0.5, seed=seed)
        assert all(holds(text)), text
        assert text != TEXT


def test_the_last_word_is_never_dropped_and_space_stays() -> None:
    assert every("wordDrop", 1.0) == "The "
    assert every("wordDrop", 1.0, "word") == "word"
    assert every("case", 1.0, "  a\n\tb ").lower() == "  a\n\tb "
    assert every("typos", 1.0, "") == ""


def copies(row: dict[str, Any], objective: str, *kinds: dict[str, Any], seed: int = 7, **columns: str) -> list[Any]:
    declared = [Augmentation.model_validate(kind) for kind in kinds]
    return list(Augmenter(declared, Objective(objective), seed, **columns).copies(row, 1))


CASE = {"type": "case", "probability": 1}


def test_only_what_is_asked_is_changed_and_never_what_is_learned() -> None:
    assert copies({"body": "Fish swim", "label": "animal"}, "classification", CASE, text="body")[0]["label"] == "animal"
    pair = {"prompt": "what is a fish", "completion": "an animal"}
    assert copies(pair, "supervised", CASE)[0]["completion"] == "an animal"
    assert copies(pair, "supervised", CASE)[0]["prompt"].lower() == "what is a fish"
    turns = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "a fish"}, {"role": "assistant", "content": "yes"}]
    said = copies({"messages": turns}, "supervised", CASE)[0]["messages"]
    assert [turn["content"] for turn in said[::2]] == ["be kind", "yes"]
    assert said[1]["content"] != "a fish"


def test_copies_are_fixed_by_seed_row_kind_and_number() -> None:
    row, typos = {"text": TEXT}, {"type": "typos", "probability": 0.5, "copies": 3}
    found = copies(row, "causalLanguageModeling", typos, CASE)
    assert len(found) == 4
    assert len({copy["text"] for copy in found}) == 4
    assert found == copies(row, "causalLanguageModeling", typos, CASE)
    assert found != copies(row, "causalLanguageModeling", typos, CASE, seed=8)
    assert copies({"text": "1 2"}, "causalLanguageModeling", CASE) == [], "what came out as it was is no copy"


ROWS = [{"text": f"cat number {n} sat on mat {n * 7}"} for n in range(60)]


def test_prepare_writes_copies_beside_their_rows_counts_them_and_records_them(job: Any) -> None:
    plain = job.prepare(job.file("a.jsonl", ROWS))
    more = job.prepare(job.file("a.jsonl", ROWS), augmentation=[{"type": "wordSwap", "probability": 0.5, "copies": 2}])
    source = more.report.stages[0].sources[0]
    assert (len(plain.stages["a"].train), plain.report.stages[0].sources[0].augmented) == (60, 0)
    assert source.read_rows == 60
    assert source.rows == len(more.stages["a"].train) == 60 + source.augmented
    assert 100 < source.augmented <= 120
    rows = more.stages["a"].train
    assert int(rows.copies.sum()) == source.augmented
    again = job.prepare(job.file("a.jsonl", ROWS), augmentation=[{"type": "wordSwap", "probability": 0.5, "copies": 2}])
    assert [again.stages["a"].train.id(i) for i in range(len(rows))] == [rows.id(i) for i in range(len(rows))]


def test_copies_stay_on_the_side_of_their_row_and_are_never_measured(job: Any) -> None:
    plain = job.prepare(job.file("a.jsonl", ROWS), validation={"fraction": 0.3})
    more = job.prepare(job.file("a.jsonl", ROWS), validation={"fraction": 0.3}, augmentation=[{"type": "case", "copies": 2}])
    before, after = plain.stages["a"], more.stages["a"]
    assert [after.validation.id(i) for i in range(len(after.validation))] == [
        before.validation.id(i) for i in range(len(before.validation))
    ]
    assert len(after.train) > len(before.train)
    assert not set(after.train.inputs.tolist()) & set(after.validation.inputs.tolist())
    assert not after.validation.copies.any()


def test_a_row_that_is_dropped_takes_its_copies_with_it(job: Any) -> None:
    long, drops = {"text": " ".join(["word"] * 20)}, {"type": "wordDrop", "probability": 0.9, "copies": 2}
    options: dict[str, Any] = {"augmentation": [drops], "training": {"maxLength": 16}}
    found = job.prepare(job.file("a.jsonl", [*ROWS[:4], long, *ROWS[4:6]]), overflow="drop", **options)
    (source,) = found.report.stages[0].sources
    assert (source.read_rows, source.dropped_long, source.rows) == (7, 1, 6 + source.augmented), (
        "rows of the file are counted, not their copies"
    )
    rows = found.stages["a"].train
    assert int(rows.copies.sum()) == source.augmented > 6
    with pytest.raises(TrainerError, match="1 of 1 rows are longer than maxLength 16"):
        job.prepare(job.file("b.jsonl", [long]), overflow="drop", **options)


def test_validation_rows_of_their_own_are_not_augmented(job: Any) -> None:
    found = job.prepare(
        job.file("a.jsonl", ROWS),
        validation={"uri": job.file("v.jsonl", [{"text": f"another {n}"} for n in range(5)])},
        augmentation=[{"type": "typos"}],
    )
    assert len(found.stages["a"].validation) == 5


def test_plain_text_has_no_rows_to_copy(job: Any, tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match="plain text has no rows to copy") as caught:
        job.prepare(job.file("a.txt", "some words"), augmentation=[{"type": "typos"}])
    assert caught.value.reason is Reason.INVALID_SPEC
