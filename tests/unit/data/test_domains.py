"""The domain of a row: read only where a guard asks for it, numbered alike over all sources, and two at least."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_trainer.errors import TrainerError

ROWS = [{"text": f"cat number {n} sat on mat {n * 7}", "site": ("forum", "paper", 3)[n % 3], "year": 1990 + n % 2} for n in range(30)]
DANN: dict[str, Any] = {"regularization": [{"type": "dann", "strength": 1}]}
DOMAIN = {"domain": "site"}


def prepared(job: Any, *sources: list[dict[str, Any]], fields: dict[str, Any] = DANN, columns: dict[str, str] = DOMAIN) -> Any:
    files = [{"uri": job.file(f"{number}.jsonl", rows)} for number, rows in enumerate(sources)]
    return job.prepare(files, fields=fields, columns=columns).stages["a"].train


def test_domains_are_numbered_over_all_sources(job: Any) -> None:
    rows = prepared(job, ROWS, [{"text": "a dog sat", "site": "atlas"}])
    names = rows.group_names["domain"]
    assert rows.group_names == {"domain": ["3", "atlas", "forum", "paper"]}
    assert [names[rows.groups(index)[0]] for index in (0, 1, 2, 3, 30)] == ["forum", "paper", "3", "forum", "atlas"]
    assert [rows.subset([30, 1]).groups(index) for index in range(2)] == [[1], [3]]


def test_a_confounder_stands_beside_the_domain(job: Any) -> None:
    rows = prepared(job, ROWS, columns={"confounder": "year", "domain": "site"})
    assert rows.group_names == {"domain": ["3", "forum", "paper"], "confounder": ["1990", "1991"]}
    assert [rows.groups(index) for index in range(4)] == [[1, 0], [2, 1], [0, 0], [1, 1]]
    assert prepared(job, ROWS, columns={"confounder": "year"}).group_names == {"confounder": ["1990", "1991"]}


def test_copies_of_a_row_are_of_its_domain(job: Any) -> None:
    rows = job.prepare(job.file("a.jsonl", ROWS), fields=DANN, columns=DOMAIN, augmentation=[{"type": "wordSwap", "probability": 0.9}])
    train = rows.stages["a"].train
    assert len(train) > len(ROWS)
    lines = [train.where(index) for index in range(len(train))]
    assert len({(line, *train.groups(index)) for index, line in enumerate(lines)}) == len(set(lines))


def test_nobody_asks_for_them_without_the_guard(job: Any) -> None:
    rows = prepared(job, [{"text": "a dog sat"}, *ROWS], fields={}, columns={})
    assert (rows.group_names, rows.groups(0)) == ({}, [])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [{**row, "site": "forum"} for row in ROWS],
            "all rows have the one domain 'forum': dann needs two at least; add rows of another, name another column, or leave dann out",
        ),
        ([{"text": "a dog sat"}, *ROWS], "has no field 'site'; it has 'text'"),
        ([{"text": "a dog sat", "site": " "}, *ROWS], "field 'site' must name the row's domain in 1 to 256 characters"),
        ([{"text": "a dog sat", "site": True}, *ROWS], "field 'site' is true or false, not a string"),
    ],
    ids=["one domain", "none", "a blank one", "another type"],
)
def test_what_is_wrong_is_said_before_anything_is_loaded(rows: list[dict[str, Any]], message: str, job: Any) -> None:
    with pytest.raises(TrainerError) as caught:
        prepared(job, rows)
    assert message in str(caught.value)


def test_plain_text_has_no_column(job: Any) -> None:
    with pytest.raises(TrainerError, match="plain text has no column of domains or confounders"):
        job.prepare(job.file("a.txt", "some words"), fields=DANN, columns=DOMAIN)
