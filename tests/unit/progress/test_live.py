"""Whose turn it is for a status write, how fast a job goes, and which reports contradict each other: with a clock that is moved by hand."""

from __future__ import annotations

import itertools
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest

from finetune_api.constants import NoticeReason
from finetune_api.wire import Activity, Notice, ProgressUpdate
from finetune_operator.index import Index
from finetune_operator.model import Key
from finetune_operator.progress.identity import Pod, Sender
from finetune_operator.progress.limits import Bucket
from finetune_operator.progress.live import CREDIT, INTERVAL, RATE, LiveReports
from finetune_operator.progress.refusal import Refusal
from finetune_operator.workqueue import WorkQueue

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def sender(job: str = "a", pod: str = "1") -> Sender:
    return Sender(Pod("team", f"{job}-{pod}", f"uid-{job}-{pod}"), f"ft-{job}-1-{pod}", f"uid-{job}", Key("team", job), ("domain", "task"))


def train(done: int, stage: str = "domain", **fields: Any) -> ProgressUpdate:
    return ProgressUpdate(activity=Activity.TRAIN, stage=stage, done=done, total=1000, percent=done / 10, **fields)


class World:
    """Reports, turns and the writes that follow them."""

    def __init__(self) -> None:
        self.now = 0.0
        self.queue = WorkQueue[Key](clock=lambda: self.now)
        self.live = LiveReports(Index(), self.queue, clock=lambda: self.now, now=lambda: NOW)
        self.writes: list[tuple[float, str]] = []

    def work(self) -> None:
        """Give every turn whose time has come, and write."""
        while self.live.turn() == 0.0:
            pass
        while (key := self.queue.pop()) is not None:
            found = self.live.of(f"uid-{key.name}")
            assert found is not None and found.due
            self.writes.append((self.now, key.name))
            self.live.told(f"uid-{key.name}")
            self.queue.done(key)


def test_a_job_is_written_at_once_and_then_every_ten_seconds() -> None:
    world = World()
    for tenth in range(600):
        world.now = tenth / 10
        world.live.take(sender(), train(tenth))
        world.work()
    assert [moment for moment, _ in world.writes] == [0.0, 10.0, 20.0, 30.0, 40.0, 50.0]


def test_ten_thousand_reports_of_one_pod_are_one_write() -> None:
    world = World()
    for step in range(10_000):
        world.live.take(sender(), train(step // 10))
        world.work()
    assert len(world.writes) == 1


def test_a_thousand_jobs_share_the_writes_fairly() -> None:
    """One report in five seconds each, for three minutes: the limit holds in every second, and nobody waits thirty seconds."""
    world, reports = World(), 1000
    for step in range(1800):
        world.now = step / 10
        for number in range(reports):
            if (step + number) % 50 == 0:
                world.live.take(sender(f"{number:04d}"), train(step // 2))
        world.work()
    by_second = Counter(int(moment) for moment, _ in world.writes)
    assert max(by_second.values()) <= RATE * (1 + CREDIT) + 1
    waits: dict[str, list[float]] = {}
    for moment, name in world.writes:
        waits.setdefault(name, []).append(moment)
    assert len(waits) == reports
    gaps = [later - earlier for moments in waits.values() for earlier, later in itertools.pairwise(moments)]
    assert min(gaps) >= INTERVAL
    assert max(gaps) <= reports / RATE + 1 + 5  # a turn, and the time to the next report
    assert max(map(len, waits.values())) - min(map(len, waits.values())) <= 1


def test_a_job_that_comes_late_is_not_behind_a_thousand() -> None:
    world = World()
    for number in range(1000):
        world.live.take(sender(f"{number:04d}"), train(1))
    world.now = 5.0
    world.work()
    world.live.take(sender("late"), train(1))
    while "late" not in [name for _, name in world.writes]:
        world.now += 0.1
        world.work()
    assert world.now - 5.0 <= 1000 / RATE + 1


@pytest.mark.parametrize(
    ("before", "after", "status"),
    [
        (train(40), train(40), None),
        (train(40), train(39), 409),
        (train(40, "task"), train(900, "domain"), 409),
        (train(40, "task", arm=0), train(1, "domain", arm=1), None),
        (train(40, "task", arm=1), train(41, "task", arm=0), 409),
        (train(40, "task", arm=1), train(900, "domain", arm=1), 409),
        (train(900, "domain"), train(1, "task"), None),
        (train(40), ProgressUpdate(activity=Activity.EVALUATE, stage="domain", done=1), None),
        (train(40), train(41, "another"), 422),
    ],
    ids=[
        "the same",
        "a step back",
        "a stage back",
        "the next seed begins",
        "a seed back",
        "a stage back in a later seed",
        "the next stage",
        "an evaluation",
        "no stage of the job",
    ],
)
def test_what_contradicts_itself_is_refused(before: ProgressUpdate, after: ProgressUpdate, status: int | None) -> None:
    world = World()
    world.live.take(sender(), before)
    if status is None:
        world.live.take(sender(), after)
        return
    with pytest.raises(Refusal) as caught:
        world.live.take(sender(), after)
    assert caught.value.status == status
    found = world.live.of("uid-a")
    assert found is not None and found.update == before


def test_another_pod_starts_where_its_checkpoint_was() -> None:
    world = World()
    world.live.take(sender(pod="1"), train(400, loss=1.0))
    world.now = 60.0
    world.live.take(sender(pod="2"), train(350, loss=1.1))
    found = world.live.of("uid-a")
    assert found is not None and found.training is not None
    assert (found.job, found.training.done, found.pace) == ("ft-a-1-2", 350, None)


def test_the_pace_is_of_the_last_minutes_and_of_one_pod() -> None:
    world = World()
    for second in range(0, 1200, 5):
        world.now = float(second)
        done = second // 2 if second < 600 else 300 + (second - 600) // 4
        world.live.take(sender(), train(done))
    found = world.live.of("uid-a")
    assert found is not None and found.pace == pytest.approx(0.025, rel=0.05)


def test_a_resume_is_no_leap_of_the_pace() -> None:
    """What is said while a model is loaded is of the beginning of a part; the first step is where the checkpoint was."""
    world = World()
    for second in range(0, 100, 5):
        world.now = float(second)
        loading = ProgressUpdate(activity=Activity.LOAD, stage="domain", percent=0.0)
        world.live.take(sender(), loading if second < 30 else train(400 + second))
    found = world.live.of("uid-a")
    assert found is not None and found.pace == pytest.approx(0.1, rel=0.05)


def test_what_an_evaluation_measured_stays_until_the_next_stage() -> None:
    world = World()
    world.live.take(sender(), train(10, loss=1.5, learning_rate=1e-4))
    world.live.take(sender(), train(10, metrics={"eval_loss": 1.25}))
    found = world.live.of("uid-a")
    assert found is not None and found.training is not None
    assert (found.metrics, found.training.loss, found.training.learning_rate) == ({"eval_loss": 1.25}, 1.5, 1e-4)
    world.live.take(sender(), train(11, loss=1.0))
    found = world.live.of("uid-a")
    assert found is not None and found.metrics == {"eval_loss": 1.25}
    world.live.take(sender(), train(1, "task", loss=0.9))
    found = world.live.of("uid-a")
    assert found is not None and found.metrics == {}


def test_jobs_that_are_gone_are_forgotten() -> None:
    world = World()
    for number in range(100):
        world.live.take(sender(str(number)), train(1))
    world.live.prune()
    assert len(world.live) == 0
    world.work()
    assert world.writes == []


def test_a_bucket_lets_through_what_it_says() -> None:
    now = 0.0
    bucket = Bucket(1.0, 10, lambda: now)
    assert sum(bucket.take() for _ in range(10_000)) == 10
    now = 5.0
    assert sum(bucket.take() for _ in range(10_000)) == 5


def test_what_a_trainer_notices_stands_until_it_says_otherwise() -> None:
    world = World()
    flat = Notice(reason=NoticeReason.LOSS_FLAT, message="flat")

    def noticed() -> list[str]:
        found = world.live.of("uid-a")
        assert found is not None
        return [each.message for each in found.notices]

    world.live.take(sender(), train(1, notices=[flat]))
    world.live.take(sender(), train(2))
    assert noticed() == ["flat"], "a report that does not speak of it, as an older trainer's"
    world.live.take(sender(), train(3, notices=[]))
    assert noticed() == []
    world.live.take(sender(), train(4, notices=[flat]))
    world.live.take(sender(pod="2"), train(4))
    assert noticed() == [], "another pod has not said so"
