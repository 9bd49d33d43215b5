"""Jobs and pods are followed through every end of a watch: what was told is not listed again, and what may be missing is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from finetune_operator import follow
from finetune_operator.errors import KubeError, Transient
from finetune_operator.index import CHILDREN
from finetune_operator.kinds import POD, Kind
from finetune_operator.model import Manifest


class Over(Exception):
    """The story is told."""


def broken(code: int = 0) -> Transient:
    return Transient("WATCH", "/pods", code=code, reason="", message="")


def at(version: int, name: str = "p") -> Manifest:
    return {"metadata": {"name": f"{name}{version}", "resourceVersion": str(version)}}


class Story:
    """What lists and watches answer, in turn; a failure ends its part. A list of metadata, then one of what has not finished."""

    def __init__(self, lists: Sequence[Sequence[Any]], watches: Sequence[Sequence[Any]]) -> None:
        self._lists = iter(lists)
        self._watches = iter(watches)
        self.asked: list[str] = []
        self.delivered: list[tuple[str | None, str]] = []
        self.noted: list[str] = []

    async def listed(
        self, kind: Kind, namespace: str | None, *, labels: str, fields: str = "", metadata_only: bool = False, chunk: int
    ) -> AsyncIterator[tuple[Sequence[Manifest], str]]:
        assert metadata_only != bool(fields)
        self.asked.append("list" if metadata_only else "unfinished")
        for answer in next(self._lists):
            if isinstance(answer, KubeError):
                raise answer
            yield answer

    async def changes(self, kind: Kind, namespace: str | None, *, labels: str, since: str) -> AsyncIterator[tuple[str, Manifest]]:
        self.asked.append(f"watch {since}")
        for answer in next(self._watches, [Over()]):
            if isinstance(answer, Exception):
                raise answer
            yield answer

    def deliver(self, kind: Kind, change: str | None, manifest: Manifest) -> None:
        self.delivered.append((change, manifest["metadata"]["name"]))

    def note(self, kind: Kind, manifest: Manifest) -> None:
        self.noted.append(manifest["metadata"]["name"])


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(follow.asyncio, "sleep", sleep)
    return slept


def told(story: Story) -> list[str]:
    """Follow until the story is over. Returns what was asked."""
    with pytest.raises(Over):
        asyncio.run(follow.follow(story, POD, "team", story))
    return story.asked


LIST = [([at(1)], "4"), ([at(2)], "4")]
UNFINISHED = [([at(2)], "6")]
LISTS = [LIST, UNFINISHED]
ASKED = ["list", "unfinished", "watch 4"]


def test_what_has_finished_is_noted_the_rest_delivered_then_each_change_but_no_bookmark() -> None:
    """The watch begins where the first list ended: what finished before the second is in neither's objects."""
    story = Story(LISTS, [[("ADDED", at(5)), ("BOOKMARK", at(9)), ("DELETED", at(10))]])
    assert told(story) == [*ASKED, "watch 10"]
    assert story.noted == ["p1", "p2"]
    assert story.delivered == [(None, "p2"), ("ADDED", "p5"), ("DELETED", "p10")]


@pytest.mark.parametrize("end", [[], [broken()]], ids=["ended", "broken"])
def test_a_watch_goes_on_where_it_ended(end: list[Exception]) -> None:
    story = Story(LISTS, [[("BOOKMARK", at(9)), *end]])
    assert told(story) == [*ASKED, "watch 9"]


def test_what_is_too_old_is_listed_anew() -> None:
    story = Story([*LISTS, [([at(20)], "21")], [([at(20)], "22")]], [[("ADDED", at(5)), broken(410)]])
    assert told(story) == [*ASKED, "list", "unfinished", "watch 21"]
    assert story.delivered[-1] == (None, "p20")


@pytest.mark.parametrize(("lists", "asked"), [([[LIST[0], broken()]], ["list"]), ([LIST, [broken()]], ["list", "unfinished"])])
def test_a_list_that_breaks_off_is_begun_again(lists: list[Any], asked: list[str]) -> None:
    assert told(Story([*lists, *LISTS], [])) == [*asked, *ASKED]


def test_each_failure_is_waited_for_longer_until_something_comes(no_waiting: list[float]) -> None:
    story = Story(LISTS, [[broken()]] * 8 + [[("BOOKMARK", at(9)), broken()]])
    told(story)
    assert no_waiting == [1, 1, 2, 3, 5, 8, follow.LONGEST_BACKOFF, follow.LONGEST_BACKOFF, 1]


@pytest.mark.parametrize("kind", CHILDREN)
def test_each_kind_that_is_followed_says_what_has_not_finished(kind: Kind) -> None:
    assert follow.UNFINISHED[kind]
