"""Progress goes out as lines of JSON on a descriptor, or into the log; training never waits for whoever reads it."""

from __future__ import annotations

import atexit
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from finetune_api.constants import METRICS_PORT, PROGRESS_URL
from finetune_api.wire import Activity, ProgressReport

PROGRESS_FD = "FINETUNE_PROGRESS_FD"
LOG_SECONDS = 10.0
"""Between two lines of the log that say the same thing with newer figures."""
log = logging.getLogger("finetune_trainer")


class Reporter(Protocol):
    """What every part of the trainer tells its progress to. Never blocks, never raises."""

    def report(self, activity: Activity, **fields: Any) -> None:
        """Send a ProgressReport with these fields."""
        ...


class NullReporter:
    """For tests and for runs that nobody watches."""

    def report(self, activity: Activity, **fields: Any) -> None:
        pass


class PipeReporter:
    """Writes to a non-blocking descriptor; a report that doesn't fit is dropped, a closed pipe is forgotten."""

    def __init__(self, descriptor: int, clock: Callable[[], float] = time.time) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor: int | None = descriptor
        self._clock = clock

    def report(self, activity: Activity, **fields: Any) -> None:
        if self._descriptor is None:
            return
        line = ProgressReport(activity=activity, at=self._clock(), **fields).model_dump_json(exclude_none=True) + "\n"
        try:
            os.write(self._descriptor, line.encode())
        except BlockingIOError:
            pass
        except OSError:
            self._descriptor = None


class LogReporter:
    """Where no parent reads, as in a pod: a line at each beginning and for each message, and one every ten seconds between, for `kubectl logs`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._doing: tuple[object, ...] = ()
        self._next = 0.0

    def report(self, activity: Activity, **fields: Any) -> None:
        doing = (activity, fields.get("stage"), fields.get("suite"))
        told = fields.get("message")
        if told is None and doing == self._doing and self._clock() < self._next:
            return
        self._doing, self._next = doing, self._clock() + LOG_SECONDS
        log.info("%s", told or log_line(activity, fields))


def log_line(activity: Activity, fields: Mapping[str, Any]) -> str:
    """Example: `train stage=domain 40/120 steps loss=0.812 learningRate=2e-05 tokensPerSecond=5120 percent=31 etaSeconds=420`."""
    place = [f"{name}={fields[name]}" for name in ("stage", "suite") if fields.get(name)]
    amount = f"{fields.get('done', 0)}/{fields['total']} {fields.get('unit', 'steps')}" if fields.get("total") else ""
    named = {
        "loss": "loss",
        "learning_rate": "learningRate",
        "tokens_per_second": "tokensPerSecond",
        "percent": "percent",
        "eta_seconds": "etaSeconds",
    }
    figures = [f"{name}={fields[key]:.4g}" for key, name in named.items() if fields.get(key) is not None]
    return " ".join(part for part in (activity.value, *place, amount, *figures) if part)


class AllReporters:
    """Tells several."""

    def __init__(self, reporters: Sequence[Reporter]) -> None:
        self.reporters = tuple(reporters)

    def report(self, activity: Activity, **fields: Any) -> None:
        for reporter in self.reporters:
            reporter.report(activity, **fields)


def from_environment() -> Reporter:
    """The reporter that the parent process asked for. Where there is none, as in a pod: the log, the operator where its address is told, and
    `/metrics` where a port is."""
    value, url, port = (os.environ.get(name) for name in (PROGRESS_FD, PROGRESS_URL, METRICS_PORT))
    if value:
        return PipeReporter(int(value))
    told = [LogReporter(), _remote(url) if url else None, _scraped(port) if port else None]
    return AllReporters([reporter for reporter in told if reporter is not None])


def _remote(url: str) -> Reporter | None:
    from finetune_trainer.remote_progress import HttpsSender, RemoteReporter

    try:
        remote = RemoteReporter(HttpsSender(url))
    except ValueError as error:
        log.warning("%s: %s", PROGRESS_URL, error)
        return None
    remote.start()
    atexit.register(remote.close)
    return remote


def _scraped(port: str) -> Reporter | None:
    from finetune_trainer.pod_metrics import serve

    return serve(port)


@dataclass(frozen=True)
class Part:
    """A piece of the whole job: its name, the activity that drives it, and its share of the work in any unit."""

    name: str
    activity: Activity
    weight: float


class JobProgress:
    """Adds to each report how much of the whole job is done and how long the rest takes at this process's pace.

    Only the activity that drives the current part moves it: a validation run inside a training part does not. The percentage never goes back.
    """

    def __init__(self, reporter: Reporter, parts: Sequence[Part], clock: Callable[[], float] = time.monotonic) -> None:
        self._reporter = reporter
        self._parts = list(parts)
        self._total = sum(part.weight for part in parts) or 1.0
        self._clock = clock
        self._current: Part | None = None
        self.arm: int | None = None
        """What reports say of the arm at work; None where the job has one."""
        self._fields: dict[str, Any] = {}
        self._before = 0.0
        self._share = 0.0
        self._origin: tuple[float, float] | None = None

    def enter(self, name: str, **fields: Any) -> None:
        """Everything before the part `name` is done; it is what runs now, and its reports carry these fields."""
        self._fields = fields
        index = next(i for i, part in enumerate(self._parts) if part.name == name)
        self._current = self._parts[index]
        self._before = sum(part.weight for part in self._parts[:index])
        self._move(0.0)

    def report(self, activity: Activity, **fields: Any) -> None:
        total = fields.get("total")
        if self._current and activity is self._current.activity and total:
            self._move(min(1.0, fields.get("done", 0) / total))
        # Before the first part is entered nobody knows what an earlier process has done.
        share = {"percent": round(100 * self._share, 2), "eta_seconds": self._eta()} if self._current else {}
        arm = {"arm": self.arm} if self.arm is not None else {}
        self._reporter.report(activity, **share | arm | self._fields | fields)

    def _move(self, fraction: float) -> None:
        weight = self._current.weight if self._current else 0.0
        self._share = max(self._share, (self._before + weight * fraction) / self._total)
        if self._origin is None:
            self._origin = (self._clock(), self._share)

    def _eta(self) -> float | None:
        if self._origin is None:
            return None
        started, share = self._origin
        done, elapsed = self._share - share, self._clock() - started
        return round(elapsed * (1 - self._share) / done, 1) if done > 0.005 and elapsed > 0 else None
