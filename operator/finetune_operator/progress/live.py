"""The newest report of each job, and whose turn it is for a status write.

A job may have a write that tells nothing but progress ten seconds after its last, and all jobs together so many a second. Who waits longest
goes first, so that a thousand jobs get the same share.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from finetune_api.wire import Activity, Notice, ProgressUpdate
from finetune_operator.index import Index
from finetune_operator.model import Key, Live
from finetune_operator.progress.identity import Sender
from finetune_operator.progress.refusal import Refusal
from finetune_operator.workqueue import Lane, WorkQueue

INTERVAL: Final = 10.0
"""Seconds between two writes of one job."""
RATE: Final = 34.0
"""Writes a second of all jobs."""
CREDIT: Final = 0.2
"""Seconds of turns that may be made up for at once: a busy loop comes late to each."""
WINDOW: Final = 300.0
"""Seconds over which a pace is taken."""
SPACING: Final = 2.0
"""Seconds between two points of it."""
ENOUGH_SECONDS: Final = 15.0
ENOUGH_PERCENT: Final = 0.05
PRUNE_SECONDS: Final = 60.0


@dataclass
class _State:
    sender: Sender
    update: ProgressUpdate
    received: datetime
    training: ProgressUpdate | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    notices: tuple[Notice, ...] = ()
    points: deque[tuple[float, float]] = field(default_factory=deque)
    due: bool = False
    waiting: bool = False
    next_at: float = 0.0


class LiveReports:
    def __init__(self, index: Index, queue: WorkQueue[Key], *, clock: Callable[[], float], now: Callable[[], datetime]) -> None:
        """clock: seconds, monotonic. now: the time of `updatedAt`."""
        self._index = index
        self._queue = queue
        self._clock = clock
        self._now = now
        self._states: dict[str, _State] = {}
        self._turns: list[tuple[float, int, str]] = []  # heap; the number keeps equal times in their order
        self._count = 0
        self._free_at = 0.0
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        """How many jobs report."""
        return len(self._states)

    def take(self, sender: Sender, update: ProgressUpdate) -> None:
        """Keep a report. Raises Refusal where it contradicts the job, or what the same pod has said."""
        if update.stage is not None and update.stage not in sender.stages:
            raise Refusal(422, "stage: the FineTuneJob has no stage of this name")
        state = self._states.get(sender.owner)
        if state is None:
            state = self._states[sender.owner] = _State(sender, update, self._now())
        elif state.sender.pod != sender.pod:
            state.sender, state.training, state.metrics, state.notices = sender, None, {}, ()
            state.points.clear()
        _check_order(sender, state.training, update)
        state.sender, state.update, state.received = sender, update, self._now()
        if update.activity is Activity.TRAIN:
            if state.training is not None and (state.training.arm, state.training.stage) != (update.arm, update.stage):
                state.metrics = {}
            kept = _KEPT if state.training is not None and update.loss is None else ()
            state.training = update.model_copy(update={name: getattr(state.training, name) for name in kept})
        if update.metrics:
            state.metrics = update.metrics
        if update.notices is not None:
            state.notices = tuple(update.notices)
        if update.percent is not None and update.activity is not Activity.LOAD:  # what is loaded moves nothing, and may begin anywhere
            self._see(state, update.percent)
        self._await_turn(sender.owner, state)

    def of(self, owner: str) -> Live | None:
        """What this FineTuneJob's pod said last."""
        state = self._states.get(owner)
        if state is None:
            return None
        return Live(
            state.update,
            state.training,
            state.metrics,
            state.sender.job,
            state.received,
            _pace(state.points),
            state.due,
            notices=state.notices,
            pod=state.sender.pod.name,
        )

    def told(self, owner: str) -> None:
        """The job was just looked at: what there was to tell is told."""
        state = self._states.get(owner)
        if state is not None:
            state.due = False

    def turn(self) -> float | None:
        """Give the next job its turn, where it is time. Returns the seconds until the next, None where nobody waits."""
        if not self._turns:
            return None
        now, (due, _, owner) = self._clock(), self._turns[0]
        wait = max(due, self._free_at) - now
        if wait > 0:
            return wait
        heapq.heappop(self._turns)
        state = self._states.get(owner)
        if state is not None:
            state.waiting, state.due, state.next_at = False, True, now + INTERVAL
            self._free_at = max(self._free_at, now - CREDIT) + 1 / RATE
            self._queue.add(state.sender.key, Lane.RUNNING)
        return 0.0

    async def run(self) -> None:
        """Give turns for ever."""
        pruned = self._clock()
        while True:
            wait = self.turn()
            if self._clock() - pruned >= PRUNE_SECONDS:
                self.prune()
                pruned = self._clock()
            self._changed.clear()
            try:
                async with asyncio.timeout(PRUNE_SECONDS if wait is None else wait):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def prune(self) -> None:
        """Forget the jobs that are gone or finished."""
        for owner in list(self._states):
            job = self._index.get(owner)
            if job is None or job.settled:
                del self._states[owner]

    def _see(self, state: _State, percent: float) -> None:
        """Take a point of the pace."""
        now, points = self._clock(), state.points
        if points and percent < points[-1][1]:  # no work is undone: this process counts otherwise
            points.clear()
        if points and now - points[-1][0] < SPACING:
            return
        points.append((now, percent))
        while now - points[0][0] > WINDOW:
            points.popleft()

    def _await_turn(self, owner: str, state: _State) -> None:
        if state.waiting:
            return
        state.waiting = True
        self._count += 1
        heapq.heappush(self._turns, (max(self._clock(), state.next_at), self._count, owner))
        self._changed.set()


_KEPT: Final = ("loss", "epoch", "learning_rate", "grad_norm", "tokens_per_second")
"""Figures that a report without a loss (one that tells an evaluation's metrics) leaves as they were."""


def _check_order(sender: Sender, before: ProgressUpdate | None, update: ProgressUpdate) -> None:
    """Refuse what goes back in one pod: only another pod starts from an earlier checkpoint."""
    if before is None or update.activity is not Activity.TRAIN:
        return
    if _place(sender, update) < _place(sender, before):
        raise Refusal(409, f"step {update.done} is before step {before.done}, which this pod has reported already")


def _place(sender: Sender, update: ProgressUpdate) -> tuple[int, int, int]:
    """Arms come one after the other, and each begins with its first stage."""
    return (update.arm or 0, sender.stages.index(update.stage) if update.stage is not None else 0, update.done)


def _pace(points: Iterable[tuple[float, float]]) -> float | None:
    """Percent a second between the oldest and the newest point."""
    seen = list(points)
    if len(seen) < 2:
        return None
    seconds, percent = seen[-1][0] - seen[0][0], seen[-1][1] - seen[0][1]
    return percent / seconds if seconds >= ENOUGH_SECONDS and percent >= ENOUGH_PERCENT else None
