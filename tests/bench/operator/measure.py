"""The measurements, each on an operator that runs: small enough to be tests, with other numbers to be figures."""

from __future__ import annotations

import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from finetune_api import constants as c
from finetune_operator.kinds import FINE_TUNE_JOB, JOB
from scripts.demo_assets import ROOT
from tests.apiserver.operators import WHOLE, Operator
from tests.bench.operator.load import ENDS, STAYS, Batch, Crowd, fine_tune_job, plain_job, runtimes
from tests.bench.operator.writes import lists, writes
from tests.cluster import Cluster, Wanted, audit
from tests.cluster.pods import await_value
from tests.procfs import memory

USER: Final = "bench-operator"
GRACE: Final = 5.0
"""Seconds after a re-list in which what it found would be looked at and written."""
IDLE: Final = 30.0
"""Seconds after which connections that nobody uses are closed."""
REQUESTS: Final = "finetune_api_request"
PATIENCE: Final = 10.0
"""Seconds a job that a crowd may take: this is a guard, not a target."""


@dataclass
class Bench:
    cluster: Cluster
    ours: Crowd
    plain: Crowd
    folder: Path
    relist: int
    """Seconds from one re-list to the next."""
    made: int = 0

    @contextmanager
    def operator(self, *more: str) -> Iterator[Operator]:
        """The operator as a process, under a name of its own in the audit log, for the namespace of our crowd. more: flags."""
        kubeconfig = self.cluster.user(USER, "system:masters")
        flags = ("--relist-seconds", str(self.relist), "--namespaces", self.ours.namespace, *more)
        with Operator.running(kubeconfig, self.folder / "operator.log", *flags, program=WHOLE) as operator:
            yield operator

    def names(self, count: int) -> list[str]:
        self.made += count
        return [f"job-{number}" for number in range(self.made - count, self.made)]

    def race(self, rounds: int, batch: int) -> Race:
        """Plain Jobs and FineTuneJobs by turns, so many a batch; all end as soon as they can."""
        start, turns = audit.size(self.cluster.audit_log), []
        for _ in range(rounds):
            plain = [plain_job(f"plain-{self.made}-{each}") for each in range(batch)]
            first = self.plain.run(plain, patience=30 + PATIENCE * batch)
            turns.append((first, self.ours.run([fine_tune_job(name, ENDS) for name in self.names(batch)], patience=30 + PATIENCE * batch)))
        time.sleep(GRACE)
        log, ours, jobs = self.cluster.audit_log, self.ours.namespace, rounds * batch
        everybody = writes(log, start, ours), writes(log, start, self.plain.namespace)
        return Race(turns, jobs, writes(log, start, ours, user=USER), *everybody)

    def fill(self, held: int, ended: int) -> None:
        """Have so many more jobs that run on, then so many that have ended."""
        uids = self.ours.post(fine_tune_job(name, STAYS) for name in self.names(held))
        self.ours.await_phase(uids, "Running", patience=30 + PATIENCE * held)
        if ended:
            self.ours.run([fine_tune_job(name, ENDS) for name in self.names(ended)], patience=30 + PATIENCE * ended)

    def delete_all(self, operator: Operator) -> None:
        """Delete every job, until the operator knows none of them, nor a child of one."""
        path = FINE_TUNE_JOB.path(self.ours.namespace)
        for found in self.cluster.api.items(path):
            self.cluster.api.delete(f"{path}/{found['metadata']['name']}")

        def forgotten() -> bool:
            known = re.findall(r"^finetune_objects\{.*\} (\S+)$", operator.metrics(), flags=re.MULTILINE)
            return bool(known) and not any(map(float, known))

        await_value(forgotten, what="the operator knowing no object", timeout=300 + PATIENCE * self.made, every=1)

    def churn(self, jobs: int) -> Churn:
        """Make and delete so many jobs, twice: what the second time leaves is a leak, what the first leaves may be a cache."""
        with self.operator() as operator:
            self.fill(held=0, ended=jobs)
            self.delete_all(operator)
            time.sleep(IDLE)
            before, files, resident = series(operator.metrics()), operator.open_files(), operator.resident()
            self.fill(held=0, ended=jobs)
            begun = time.monotonic()
            full = len(series(operator.metrics()))
            seconds, most = time.monotonic() - begun, operator.resident()
            self.delete_all(operator)
            time.sleep(IDLE)
            left = series(operator.metrics()) - before
            return Churn(full, seconds, most, len(left), files, operator.open_files() - files, resident, operator.resident() - resident)

    def quiet(self) -> Counter[str]:
        """What the operator writes over three re-lists, while nothing happens."""
        time.sleep(GRACE)
        log, start = self.cluster.audit_log, audit.size(self.cluster.audit_log)
        await_value(
            lambda: lists(log, start, USER, FINE_TUNE_JOB.plural) >= 3, what="three re-lists", timeout=300 + 6 * self.relist, every=1
        )
        time.sleep(GRACE)
        return writes(log, start, self.ours.namespace, user=USER)

    def restart(self) -> Restart:
        """Start an operator where one has run before, and make one job meanwhile: it is caught up when that one has its Job.

        What is known and what is new take turns: it is not before its turn.
        """
        start = audit.size(self.cluster.audit_log)
        (uid,) = self.ours.post([fine_tune_job("new-one", ENDS)])
        begun = time.monotonic()
        with self.operator() as operator:
            ready = time.monotonic() - begun
            path, wanted = JOB.path(self.ours.namespace), f"{c.JOB_UID_LABEL}={uid}"
            await_value(
                lambda: self.cluster.api.items(path, labelSelector=wanted, resourceVersion="0"),
                what="a Job of what was made while no operator ran",
                timeout=120,
            )
            caught_up, processor = time.monotonic() - begun, cpu_seconds(operator)
            self.ours.await_phase([uid], "Succeeded", patience=120)
            time.sleep(self.relist + 2 * GRACE)
            unchanged = writes(self.cluster.audit_log, start, self.ours.namespace, user=USER, about=lambda name: "new-one" not in name)
            return Restart(ready, caught_up, processor, unchanged, operator.resident(), peak(operator))


@dataclass(frozen=True)
class Race:
    turns: list[tuple[Batch, Batch]]
    """Plain, ours."""
    jobs: int
    """Of each kind, in all turns."""
    by_operator: Counter[str]
    for_ours: Counter[str]
    """By everybody, in the namespace of the FineTuneJobs."""
    for_plain: Counter[str]


@dataclass(frozen=True)
class Churn:
    """A scrape while all jobs were there, and what stood before them and was left of them; megabytes."""

    series: int
    seconds: float
    most: float
    series_left: int
    files: int
    files_left: int
    megabytes: float
    megabytes_left: float


@dataclass(frozen=True)
class Restart:
    """Seconds from the start of the process; megabytes."""

    ready: float
    caught_up: float
    processor: float
    unchanged: Counter[str]
    resident: float
    peak: float


def series(text: str) -> set[str]:
    """Every series of a scrape, by name and labels, but for those of requests: which answers there were is chance.

    Raises AssertionError where one stands twice.
    """
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    found = Counter(f"{each.name} {sorted(each.labels.items())}" for each in samples)
    assert set(found.values()) == {1}, [name for name, count in found.items() if count > 1]
    return {name for name in found if not name.startswith(REQUESTS)}


def cpu_seconds(operator: Operator) -> float:
    """What the operator has used of a processor."""
    return ticks(operator.process.pid)


def ticks(process: int) -> float:
    """Seconds of processor that a process has used."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def peak(operator: Operator) -> float:
    """The most memory that was resident, in MB."""
    return memory("VmHWM", operator.process.pid) / 1000


@contextmanager
def ground(name: str, say: Callable[[str], None], relist: int, *, fsync: bool = False) -> Iterator[Bench]:
    """A cluster of kwok nodes with our definitions and runtimes, and a namespace for each kind of job. relist: seconds from one to the next."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"bench-{name}-")))
        wanted = Wanted(kwok_nodes=3, fsync=fsync, definitions=sorted((ROOT / "crds").glob("*.yaml")))
        cluster = stack.enter_context(Cluster.up(folder / "cluster", wanted, say=say))
        stack.enter_context(runtimes(cluster))
        ours, plain = (stack.enter_context(Crowd.of(cluster, kind)) for kind in (FINE_TUNE_JOB, JOB))
        yield Bench(cluster, ours, plain, folder, relist)
