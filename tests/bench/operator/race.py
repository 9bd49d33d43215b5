"""The race of FineTuneJobs and plain Jobs: `python -m tests.bench.operator.race [--jobs N] [--steady N] [--staged N] [--large N] [--repeats N]`.

Every leg has a fresh control plane with 50 kwok nodes; the two kinds take turns. Pods run for a second, as far as kwok says so. `burst`
makes all jobs at once (etcd without fsync), `steady` five a second (with fsync); `large` is a burst, once. Figures are medians over the
repeats; times are of this process's watches, so they include the API server's. The processors' time is that of every program of the cluster
and of the operator. `staged` jobs have two stages and a pod that prepares: they are two Jobs each, and race against nobody.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Final

from finetune_operator.kinds import FINE_TUNE_JOB, JOB, Kind
from scripts.demo_assets import ROOT
from tests.apiserver.operators import WHOLE, Operator
from tests.bench.operator.load import PREPARES, RUNS, Crowd, fine_tune_job, plain_job, runtimes, staged_job
from tests.bench.operator.measure import USER, peak, ticks
from tests.bench.operator.writes import writes
from tests.bench.stopping import end_in_order
from tests.builders import Document
from tests.cluster import Cluster, Wanted
from tests.cluster.__main__ import sayer

NODES: Final = 50
PATIENCE: Final = 900.0
say = sayer()


@dataclass(frozen=True)
class Leg:
    """One kind's turn. Seconds, but where it says otherwise."""

    rate: float
    """Jobs a second, from the first request to the last end."""
    pods: list[float]
    """From each job's request to its pod."""
    writes: float
    """A job, by everybody, its own creation among them; Events apart."""
    processor: float
    """Milliseconds a job, of every program."""
    operator: float = 0.0
    """Milliseconds a job, of the operator."""
    memory: float = 0.0
    """The operator's peak in MB."""

    def at(self, percent: int) -> float:
        return quantiles(self.pods, n=100, method="inclusive")[percent - 1]


Figure = Callable[[Leg], float]
FIGURES: Final[dict[str, tuple[str, Figure]]] = {
    "jobs a second": (".1f", lambda leg: leg.rate),
    "request to pod p50, s": (".3f", lambda leg: leg.at(50)),
    "request to pod p99, s": (".3f", lambda leg: leg.at(99)),
    "writes a job by all, Events apart": (".1f", lambda leg: leg.writes),
    "CPU of everything, ms a job": (".0f", lambda leg: leg.processor),
    "of it the operator": (".0f", lambda leg: leg.operator),
    "the operator's peak, MB": (".0f", lambda leg: leg.memory),
}
TARGETS: Final = {
    "burst": {
        "jobs a second": 20.0,
        "request to pod p50, s": 5.0,
        "request to pod p99, s": 10.0,
        "CPU of everything, ms a job": 90.0,
    },
    "steady": {"request to pod p50, s": 0.05, "request to pod p99, s": 0.2},
    "large": {},
}
LIMITS: Final = {"writes a job by all, Events apart": 14.0, "the operator's peak, MB": 120.0}
SHARE: Final = 0.47
"""Of plain Jobs' rate."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=500, help="jobs of a burst (500)")
    parser.add_argument("--steady", type=int, default=100, help="jobs made five a second (100)")
    parser.add_argument("--staged", type=int, default=100, help="jobs of two stages with prepare, all at once (100)")
    parser.add_argument("--large", type=int, default=2000, help="jobs of the burst that is run once (2000)")
    parser.add_argument("--repeats", type=int, default=3, help="turns of each kind (3)")
    options = parser.parse_args()
    end_in_order()
    met = [*run("burst", options.jobs, 0.0, options.repeats), *run("steady", options.steady, 5.0, options.repeats)]
    tell_staged(options.staged, options.repeats)
    run("large", options.large, 0.0, 1)
    return 0 if all(met) else 1


def run(name: str, jobs: int, rate: float, repeats: int) -> list[bool]:
    """One form of the race. Returns which targets were met."""
    if not jobs:
        return []
    legs: dict[Kind, list[Leg]] = {JOB: [], FINE_TUNE_JOB: []}
    for turn in range(repeats):
        for kind, done in legs.items():
            done.append(leg(kind, jobs, rate, fsync=bool(rate)))
            say(f"{name} {turn + 1}/{repeats}: {kind.plural}: {done[-1].rate:.1f} a second")
    plain, ours = legs[JOB], legs[FINE_TUNE_JOB]
    say(f"{name}, {jobs} jobs, medians of {repeats}: ours (plain Jobs)")
    met = []
    for figure, (form, of) in FIGURES.items():
        found, beside = median(map(of, ours)), median(map(of, plain))
        wanted = (TARGETS[name] | LIMITS).get(figure) if TARGETS[name] else None
        kept = wanted is None or (found >= wanted if figure == "jobs a second" else found <= wanted)
        met.append(kept)
        aim = "" if wanted is None else f"; {'at least' if figure == 'jobs a second' else 'at most'} {wanted:g}"
        say(f"{'      ' if wanted is None else 'met   ' if kept else 'MISSED'} {figure}: {found:{form}} ({beside:{form}}){aim}")
    if not rate:
        aim = f"; at least {SHARE}" if TARGETS[name] else ""
        shares = [mine.rate / theirs.rate for theirs, mine in zip(plain, ours, strict=True)]
        met.append(median(shares) >= SHARE)
        word = ("met   " if met[-1] else "MISSED") if aim else "      "
        say(f"{word} of plain Jobs' rate: {median(shares):.2f} ({min(shares):.2f} to {max(shares):.2f}){aim}")
    return met


def tell_staged(jobs: int, repeats: int) -> None:
    """The jobs that most people would write, beside no other."""
    if not jobs:
        return
    legs = [leg(FINE_TUNE_JOB, jobs, 0.0, fsync=False, make=lambda name: staged_job(name, PREPARES)) for _ in range(repeats)]
    say(f"staged, {jobs} jobs of two stages with a pod that prepares, medians of {repeats}")
    for figure, (form, of) in FIGURES.items():
        say(f"       {figure}: {median(map(of, legs)):{form}}")


def leg(kind: Kind, jobs: int, rate: float, *, fsync: bool, make: Callable[[str], Document] | None = None) -> Leg:
    """Make that many jobs on a new cluster, and wait for the last one's end. rate: jobs a second, 0 for all at once. make: from a name, what is
    made, where it is not the smallest of its kind."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="race-")))
        wanted = Wanted(kwok_nodes=NODES, fsync=fsync, definitions=sorted((ROOT / "crds").glob("*.yaml")))
        cluster = stack.enter_context(Cluster.up(folder / "cluster", wanted))
        stack.enter_context(runtimes(cluster))
        crowd = stack.enter_context(Crowd.of(cluster, kind))
        operator = stack.enter_context(serving(cluster, folder)) if kind is FINE_TUNE_JOB else None
        make = make or ((lambda name: fine_tune_job(name, RUNS)) if operator else (lambda name: plain_job(name, seconds=1)))
        crowd.run([make(f"warm-{number}") for number in range(5)], patience=PATIENCE)
        before, mine = total(cluster, operator), ticks(operator.process.pid) if operator else 0.0
        begun = time.monotonic()
        uids = crowd.post(paced((make(f"job-{number}") for number in range(jobs)), rate))
        crowd.await_phase(uids, "Succeeded", patience=PATIENCE)
        seconds = max(crowd.ended[uid] for uid in uids) - begun
        processor = 1000 * (total(cluster, operator) - before) / jobs
        written = writes(cluster.audit_log, 0, crowd.namespace, about=lambda name: re.search("job-", name) is not None)
        return Leg(
            jobs / seconds,
            [crowd.pods[uid] - crowd.posted[uid] for uid in uids],
            written.total() / jobs,
            processor,
            1000 * (ticks(operator.process.pid) - mine) / jobs if operator else 0.0,
            peak(operator) if operator else 0.0,
        )


def paced(manifests: Iterator[Document], rate: float) -> Iterator[Document]:
    """The same, so many a second; all at once where rate is 0."""
    begun = time.monotonic()
    for number, manifest in enumerate(manifests):
        if rate:
            time.sleep(max(0.0, begun + number / rate - time.monotonic()))
        yield manifest


@contextmanager
def serving(cluster: Cluster, folder: Path) -> Iterator[Operator]:
    """The operator for the whole cluster, as it is deployed."""
    with Operator.running(cluster.user(USER, "system:masters"), folder / "operator.log", program=WHOLE) as operator:
        yield operator


def total(cluster: Cluster, operator: Operator | None) -> float:
    """Seconds of processor that every program of the cluster has used, and the operator."""
    programs = [identity.pid for name in cluster.processes.names() if (identity := cluster.processes.identity(name))]
    return sum(map(ticks, [*programs, *([operator.process.pid] if operator else [])]))


if __name__ == "__main__":
    sys.exit(main())
