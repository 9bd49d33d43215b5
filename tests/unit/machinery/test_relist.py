"""What a list shows against what the watches delivered: healed, or deaf. The lists are given, the clock is the test's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from finetune_operator.index import Index
from finetune_operator.kinds import CLAIM, FINE_TUNE_JOB, JOB, POD, Kind
from finetune_operator.model import Key
from finetune_operator.relist import Relist
from finetune_operator.workqueue import WorkQueue
from tests.unit.machinery.objects import batch_job, claim, fine_tune_job, finished, pod

KEY = Key("team-a", "support")
Body = dict[str, Any]


class Lists:
    """Answers lists from a table; nothing else is asked by a re-list."""

    def __init__(self, **shown: list[Body]) -> None:
        self.shown = shown
        self.meanwhile: Callable[[], None] = lambda: None
        """What happens between the moment that a list shows and its coming."""

    async def pages(self, kind: Kind, namespace: str | None = None, *, labels: str = "", **_: object) -> AsyncIterator[list[Body]]:
        assert (labels == "") == (kind is FINE_TUNE_JOB)
        items = self.shown.get(kind.plural, [])
        self.meanwhile()
        yield [item for item in items if namespace in (None, item["metadata"]["namespace"])]


class Scene:
    def __init__(self, *namespaces: str) -> None:
        self.now = 1000.0
        self.lists = Lists()
        self.index, self.queue = Index(), WorkQueue[Key](clock=lambda: self.now)
        self.relist = Relist(self.lists, self.index, self.queue, clock=lambda: self.now, namespaces=namespaces)  # type: ignore[arg-type]

    def compare(self, **shown: list[Body]) -> None:
        self.lists.shown = shown
        asyncio.run(self.relist.compare())

    def deliver(self) -> None:
        self.index.put(FINE_TUNE_JOB, fine_tune_job(), watched=True)
        self.index.put(JOB, batch_job(), watched=True)
        self.index.put(POD, pod(), watched=True)

    def keys(self) -> list[Key]:
        found = []
        while (key := self.queue.pop()) is not None:
            found.append(key)
            self.queue.done(key)
        return found


ALL = {"finetunejobs": [fine_tune_job()], "jobs": [batch_job()], "pods": [pod()]}


def test_a_list_that_shows_what_was_delivered_is_quiet() -> None:
    scene = Scene()
    scene.deliver()
    scene.compare(**ALL)
    scene.relist.heal()
    assert scene.keys() == []
    scene.now += 3600
    assert scene.relist.deaf() == ()


@pytest.mark.parametrize(
    ("plural", "newer"), [("finetunejobs", fine_tune_job(version=2)), ("jobs", batch_job(version=2)), ("pods", pod(version=2))]
)
def test_a_newer_object_than_the_watch_delivered_is_looked_at_and_after_45_seconds_means_deaf(plural: str, newer: Body) -> None:
    scene = Scene()
    scene.deliver()
    scene.compare(**{**ALL, plural: [newer]})
    scene.relist.heal()
    assert scene.keys() == [KEY]
    scene.now += 44.9
    assert scene.relist.deaf() == ()
    scene.now += 0.1
    assert scene.relist.deaf() == (plural,)


def test_what_nobody_knew_before_is_lacked_without_a_copy_of_it_and_looked_at_all_the_same() -> None:
    scene = Scene()
    scene.compare(**ALL)
    assert [lack.manifest for lack in scene.relist.lacking()] == [None, None, None]
    scene.relist.heal()
    assert scene.keys() == [KEY]


def test_it_says_when_the_lists_of_a_start_have_been_read() -> None:
    scene, told = Scene(), list[bool]()

    async def start() -> None:
        relist = Relist(scene.lists, scene.index, scene.queue, clock=lambda: scene.now, over=lambda: told.append(relist.ready.is_set()))  # type: ignore[arg-type]
        running = asyncio.create_task(relist.run())
        await relist.ready.wait()
        running.cancel()

    asyncio.run(start())
    assert told == [False]


def test_a_late_delivery_clears_the_suspicion() -> None:
    scene = Scene()
    scene.deliver()
    scene.compare(**{**ALL, "jobs": [batch_job(version=2)]})
    scene.now += 40
    scene.index.put(JOB, batch_job(version=2), watched=True)
    scene.now += 40
    assert scene.relist.deaf() == ()


def test_how_far_a_watch_is_behind_and_how_old_the_comparison_is() -> None:
    scene = Scene()
    scene.deliver()
    scene.now += 5
    assert (scene.relist.behind(), scene.relist.age()) == ({}, 5)
    scene.compare(**{**ALL, "jobs": [batch_job(version=2)], "pods": [pod(version=2)]})
    scene.now += 7
    scene.index.put(POD, pod(version=2), watched=True)
    assert (scene.relist.behind(), scene.relist.age()) == ({JOB: 7}, 7)


def test_an_answer_of_our_own_does_not_clear_it() -> None:
    scene = Scene()
    scene.deliver()
    scene.compare(**{**ALL, "jobs": [batch_job(version=2)]})
    scene.index.put(JOB, batch_job(version=2), watched=False)
    scene.now += 45
    assert scene.relist.deaf() == ("jobs",)


def test_a_busy_object_that_outruns_every_list_is_no_deafness() -> None:
    scene = Scene()
    scene.deliver()
    for version in range(2, 12, 2):
        scene.compare(**{**ALL, "jobs": [batch_job(version=version)]})
        scene.index.put(JOB, batch_job(version=version + 1), watched=True)
        scene.now += 60
    assert scene.relist.deaf() == ()


def test_a_deaf_watch_is_known_by_its_first_lack_though_newer_ones_come() -> None:
    scene = Scene()
    scene.deliver()
    for version in (2, 3):
        scene.compare(**{**ALL, "jobs": [batch_job(version=version)]})
        scene.now += 30
    assert scene.relist.deaf() == ("jobs",)


def test_what_ends_after_a_list_showed_it_is_lacked_no_more() -> None:
    """Shown by a list before the watch had delivered it, and gone before anybody looked again: the watch told all that there was."""
    scene = Scene()
    scene.deliver()
    scene.compare(**{**ALL, "pods": [pod(), pod("brief", uid="p2")]})
    scene.index.put(POD, pod("brief", uid="p2"), watched=True)
    scene.index.drop("p2")
    scene.relist.heal()
    assert scene.index.get("p2") is None, "what is gone does not come back"
    scene.now += 3600
    assert (scene.relist.deaf(), scene.relist.lacking(), scene.relist.behind()) == ((), (), {})


def test_what_a_list_no_longer_shows_is_lacked_no_more() -> None:
    scene = Scene()
    scene.deliver()
    scene.compare(**{**ALL, "pods": [pod(), pod("brief", uid="p2")]})
    scene.now += 40
    scene.compare(**ALL)
    scene.now += 3600
    assert scene.relist.deaf() == ()


def test_what_ends_while_a_list_is_on_its_way_is_not_lacked() -> None:
    scene = Scene()
    scene.deliver()

    def live_and_end() -> None:
        scene.index.put(POD, pod("brief", uid="p2"), watched=True)
        scene.index.drop("p2")

    scene.lists.meanwhile = live_and_end
    scene.compare(**{**ALL, "pods": [pod(), pod("brief", uid="p2")]})
    assert scene.index.get("p2") is None
    scene.now += 3600
    assert scene.relist.deaf() == ()


@pytest.mark.parametrize("kind", ["finetunejobs", "jobs", "pods"])
def test_a_watch_that_delivers_nothing_new_is_deaf(kind: str) -> None:
    scene = Scene()
    shown = {"finetunejobs": fine_tune_job("new", uid="j9"), "jobs": batch_job("new", uid="b9"), "pods": pod("new", uid="p9")}
    scene.deliver()
    for _ in range(2):
        scene.compare(**{**ALL, kind: [*ALL[kind], shown[kind]]})
        scene.relist.heal()
        scene.now += 30
    assert scene.relist.deaf() == (kind,)


@pytest.mark.parametrize("gone", ["jobs", "pods"])
def test_a_child_that_is_gone_without_a_word_is_forgotten_and_its_job_looked_at(gone: str) -> None:
    scene = Scene()
    scene.deliver()
    scene.compare(**{**ALL, gone: []})
    assert scene.keys() == [KEY]
    assert scene.index.get({"jobs": "b1", "pods": "p1"}[gone]) is None
    scene.now += 3600
    assert scene.relist.deaf() == ()


def test_a_job_that_is_gone_without_a_word_is_forgotten() -> None:
    scene = Scene()
    scene.deliver()
    scene.compare(jobs=[], pods=[])
    assert scene.index.job(KEY) is None
    assert len(scene.index) == 0


def test_a_finished_job_is_not_looked_at_again() -> None:
    scene = Scene()
    scene.index.put(FINE_TUNE_JOB, fine_tune_job(status=finished()), watched=True)
    scene.compare(**{**ALL, "jobs": [], "pods": [pod(version=2)]})
    scene.relist.heal()
    assert scene.keys() == []


def test_claims_are_known_by_the_list_alone() -> None:
    scene = Scene()
    scene.deliver()
    scene.compare(**ALL, persistentvolumeclaims=[claim()])
    assert [entry.kind for entry in scene.index.children("j1")].count(CLAIM) == 1
    assert scene.keys() == [KEY]
    scene.compare(**ALL, persistentvolumeclaims=[claim(version=5)])
    assert scene.keys() == []
    scene.now += 3600
    assert scene.relist.deaf() == ()


def test_namespaced_it_lists_each_namespace_and_forgets_nothing_of_the_other() -> None:
    scene = Scene("team-a", "team-b")
    scene.deliver()
    scene.compare(**{**ALL, "pods": [pod(), pod("other", uid="p9", namespace="team-c", owner=None, label=None)]})
    assert scene.index.get("p1") is not None
    assert scene.index.get("p9") is None
    assert scene.keys() == []
