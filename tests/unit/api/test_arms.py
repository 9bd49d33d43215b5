"""What a job trains more than once, and in which order."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_api.arms import arms, words
from finetune_api.plan import config_hash, resolve
from finetune_api.v1alpha1.fine_tune_job import FineTuneJob, FineTuneJobSpec
from tests.builders import edited, job
from tests.manifests.arms import COMPARED, SEVERAL

BOTH = edited(SEVERAL, {"spec.stages[1].compareWith": "direct"})


def spec(document: dict[str, Any]) -> FineTuneJobSpec:
    return FineTuneJob.model_validate(document).spec


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (job(), [("seed-42", "", 42, "domain task", 0)]),
        (edited(job(), {"spec.seed": 7}), [("seed-7", "", 7, "domain task", 0)]),
        (edited(job(), {"spec.seeds": [7]}), [("seed-7", "", 7, "domain task", 0)]),
        (SEVERAL, [(f"seed-{seed}", f"seed {seed}", seed, "domain task", 0) for seed in (1, 2, 3)]),
        (COMPARED, [("seed-42", "staged", 42, "domain task", 0), ("seed-42-direct", "direct", 42, "task", 1)]),
        (
            BOTH,
            [(f"seed-{seed}", f"seed {seed}", seed, "domain task", 0) for seed in (1, 2, 3)]
            + [(f"seed-{seed}-direct", f"seed {seed}, direct", seed, "task", 1) for seed in (1, 2, 3)],
        ),
    ],
    ids=["plain", "a seed", "one seed in a list", "seeds", "compared", "both"],
)
def test_arms_in_the_order_of_work(document: dict[str, Any], expected: list[tuple[object, ...]]) -> None:
    found = arms(spec(document))
    assert [(arm.name, arm.words, arm.seed, " ".join(stage.name for stage in arm.stages), arm.first) for arm in found] == expected
    assert [arm.index for arm in found] == list(range(len(found)))
    assert all(arm.stages[-1].hand_over is None for arm in found)


def test_words_of_a_report_are_those_of_its_arm_and_of_no_other() -> None:
    assert [words(spec(BOTH), arm) for arm in (None, 0, 5, 6)] == ["", "seed 1", "seed 3, direct", ""]


def test_what_is_trained_decides_the_hash_and_nothing_else_of_it() -> None:
    plain = config_hash(spec(job()))
    assert config_hash(spec(edited(job(), {"spec.seed": 42}))) == plain, "the default written out"
    hashes = {config_hash(spec(document)) for document in (SEVERAL, COMPARED, BOTH, edited(SEVERAL, {"spec.seeds": [1, 3, 2]}))}
    assert len(hashes | {plain}) == 5


def test_a_written_spec_says_its_seed_or_its_seeds() -> None:
    assert (resolve(spec(job())).seed, resolve(spec(job())).seeds) == (42, None)
    assert (resolve(spec(SEVERAL)).seed, resolve(spec(SEVERAL)).seeds) == (None, [1, 2, 3])
