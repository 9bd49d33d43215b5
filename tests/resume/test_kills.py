"""SIGKILL and SIGTERM at random times, and in a save, an evaluation and a hand-over: the run ends in the same bytes as an undisturbed one.

The first kill of each configuration meets a new interpreter, as users start it, and another one goes on; the others meet forked processes.
"""

from __future__ import annotations

import itertools
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from finetune_api.wire import TrainerConfig
from finetune_trainer.checkpoint.files import FileLayer
from finetune_trainer.checkpoint.journal import Event, Journal
from tests.resume.configurations import CONFIGURATIONS
from tests.resume.runs import KILLED, STOPPED, Ended, Prepared, Running, Trigger, cold, differing, digests, forked, log_of

KILLS_A_CHAIN = 2
"""A run is killed so often before it may end; then the next run begins."""


class Strike(NamedTuple):
    """One kill: what it is to meet, the signal, and when that is sent."""

    kind: str
    number: int
    moment: Trigger


def any_time(chance: random.Random, length: float) -> Trigger:
    """At a time in a run that trains for `length` seconds, uniformly; some fall into its publishing."""
    moment = chance.uniform(0, 1.1 * length)
    return lambda report, seconds: seconds >= moment


def during(activity: str, chance: random.Random, count: int) -> Trigger:
    """Up to some milliseconds after one of the `count` reports of an activity."""
    which, delay = chance.randrange(max(1, count)), chance.choice([0.0, chance.uniform(0, 0.03)])
    seen = 0
    due: float | None = None

    def when(report: dict[str, Any] | None, seconds: float) -> bool:
        nonlocal seen, due
        if report and report["activity"] == activity:
            if seen == which:
                due = seconds + delay
            seen += 1
        return due is not None and seconds >= due

    return when


def strikes(chance: random.Random, undisturbed: Ended) -> Iterator[Strike]:
    """One kill after the other, every kind in turn, in an order of chance."""
    while True:
        kinds = ["any time", "any time", "any time", *activities(undisturbed)]
        chance.shuffle(kinds)
        for kind in kinds:
            yield strike(kind, chance, undisturbed)


def strike(kind: str, chance: random.Random, undisturbed: Ended) -> Strike:
    """One kill: at any time, or in the first half of what a run reports of an activity, so that a new run always comes there."""
    if kind == "any time":
        number = chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM])
        return Strike(kind, number, any_time(chance, undisturbed.trained_for()))
    count = sum(report["activity"] == kind for report in undisturbed.reports)
    return Strike(kind, chance.choice([signal.SIGKILL, signal.SIGTERM]), during(kind, chance, count // 2))


def activities(undisturbed: Ended) -> list[str]:
    """Those of a run in which it is to be struck for certain."""
    there = {report["activity"] for report in undisturbed.reports}
    return [activity for activity in ("train", "save", "evaluate", "handOver") if activity in there]


@pytest.mark.timeout(1800)  # twenty kills on a machine that has other work
@pytest.mark.parametrize("prepared", CONFIGURATIONS, indirect=True)
def test_a_killed_run_ends_in_the_same_bytes(prepared: Prepared, seed: int, kills: int) -> None:
    print(f"seed {seed}")  # shown with whatever fails
    config = prepared.fresh("undisturbed")
    undisturbed = forked(config).end()
    assert undisturbed.code == 0, log_of(Path(config.run_folder))
    expected = digests(config)
    assert any("sample log" in key for key in expected) and any(key.startswith("published") for key in expected)

    chance = random.Random(f"{seed} {prepared.name}")
    wanted = activities(undisturbed)
    chance.shuffle(wanted)
    # The first strike of a chain meets a new run, so none of these can come too late.
    firsts = [strike("save", chance, undisturbed), *(strike(activity, chance, undisturbed) for activity in wanted)]
    planned = strikes(chance, undisturbed)
    done: list[str] = []
    for chain in itertools.count():
        config = prepared.fresh(f"chain-{chain}")
        if chain == 0:
            history = one_chain(config, iter(firsts[:1]), 1, start=cold)
        else:
            history = one_chain(config, itertools.chain(firsts[chain : chain + 1], planned), KILLS_A_CHAIN)
        where = f"seed {seed}, chain {chain}: {'; '.join(history)}\n{log_of(Path(config.run_folder))}"
        assert differing(expected, digests(config)) == [], where
        if chain < len(firsts):
            assert history and f" in {firsts[chain].kind} " in history[0], f"was not struck in {firsts[chain].kind}; {where}"
        done += history
        if chain + 1 >= len(firsts) and len(done) >= kills:
            break
    print(f"{len(done)} kills: {'; '.join(done)}")


def one_chain(
    config: TrainerConfig, planned: Iterator[Strike], wanted: int, *, start: Callable[[TrainerConfig], Running] = forked
) -> list[str]:
    """Start a run, strike it, start it again, until it was struck `wanted` times or has ended by itself; then let it end."""
    history: list[str] = []
    folder = Path(config.run_folder)
    saved = False
    while len(history) < wanted:
        now = next(planned)
        name = f"{'cold, ' if start is cold else ''}{signal.Signals(now.number).name} in {now.kind}"
        before = len(starts(folder))
        ended = start(config).end(now.number, now.moment)
        begun = starts(folder)[before:]
        nothing_lost(begun, saved)
        if ended.code == 0:
            return history
        # SIGTERM before the handler stands, or while the interpreter ends, ends the process as it always did.
        allowed = [KILLED] if now.number == signal.SIGKILL else [STOPPED, -signal.SIGTERM]
        assert ended.struck and ended.code in allowed, f"{name}: ended with {ended.code}\n{log_of(folder)}"
        history.append(f"{name} after {ended.seconds:.2f} s ({ended.code})")
        if begun:  # one that was struck before it began has taken no step, and what was lost before it still is
            saved = ended.code == STOPPED
    before = len(starts(folder))
    ended = start(config).end()
    assert ended.code == 0, f"{'; '.join(history)}: ended with {ended.code}\n{log_of(folder)}"
    nothing_lost(starts(folder)[before:], saved)
    return history


def starts(folder: Path) -> list[dict[str, Any]]:
    """The journal's starts."""
    return [event for event in Journal(folder / "journal.jsonl", FileLayer()).read() if event["event"] == Event.START]


def nothing_lost(begun: list[dict[str, Any]], saved: bool) -> None:
    """A run that answered a signal with 75 has committed every step that it had taken."""
    assert not saved or all(event["stepsLost"] == 0 for event in begun), begun
