"""A thousand jobs whose trainers report: `python -m tests.bench.operator.reporting [--jobs N] [--seconds N] [--flood N]`.

The jobs' pods are kwok's, the reports are real: the trainer's own reporter and sender (`finetune_trainer.remote_progress`) at their own pace,
each over its own kept connection, with a token that the API server made for its pod and an operator that has it reviewed. Each look of a
trainer is a step, so that a status tells which report it shows. Staleness is the time from a report's sending to a watch that shows its
step, or a later one. Then one pod sends as much as it can, over many connections, and the others report on.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import threading
import time
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from urllib3.exceptions import HTTPError

from finetune_api.wire import Activity, ProgressUpdate
from finetune_operator.kinds import FINE_TUNE_JOB, POD, job_uid_label, uid_of
from finetune_operator.progress.contract import PATH
from finetune_trainer.remote_progress import LOOK_SECONDS, SEND_SECONDS, HttpsSender, RemoteReporter, Undelivered
from scripts.demo_assets import ROOT
from scripts.render_chart import NAMESPACE
from tests.apiserver.operators import Operator
from tests.apiserver.reporting import FLAGS, SECRET, authority_of, port_of, secret_path, token
from tests.bench.operator.load import SENDERS
from tests.bench.operator.measure import USER, Bench, cpu_seconds, ground, peak
from tests.bench.operator.table import Table
from tests.bench.operator.writes import told, writes
from tests.bench.stopping import end_in_order
from tests.cluster import Cluster, audit
from tests.cluster.__main__ import sayer
from tests.cluster.api import Object

STALENESS, WRITES, CORES, HEALTHY, RESIDENT = 30.0, 34.0, 1.0, 5.0, 256.0
STEPS: Final = 100_000
THREADS: Final = 16
SETTLE_SECONDS: Final = 75.0
"""After which every token has been reviewed twice, and every job had its turns."""
LAST_SECONDS: Final = 60.0
CONNECTIONS: Final = 1500
say = sayer()


class Trainer:
    """What a pod has of its trainer: the reporter and the sender. Notes what it sent."""

    def __init__(self, job: str, send: HttpsSender, begins: float) -> None:
        """job: uid of the FineTuneJob. begins: when it starts, monotonic."""
        self.job = job
        self.sent: list[tuple[int, float]] = []
        """Step and time of what arrived."""
        self.refused: Counter[str] = Counter()
        self._send = send
        self._begins = begins
        self._step = 0
        self._reporter = RemoteReporter(self._deliver)

    def look(self) -> None:
        """Make a step, and report it where it is time."""
        if time.monotonic() < self._begins:
            return
        self._step += 1
        figures = {
            "loss": 1 + 1 / self._step,
            "epoch": self._step / STEPS,
            "learning_rate": 1e-4,
            "grad_norm": 0.5,
            "tokens_per_second": 1e4,
        }
        percent = 100 * self._step / STEPS
        self._reporter.report(Activity.TRAIN, stage="only", done=self._step, total=STEPS, percent=percent, **figures)
        self._reporter.deliver()

    def _deliver(self, update: ProgressUpdate) -> None:
        at = time.monotonic()
        try:
            self._send(update)
        except Undelivered as trouble:
            self.refused[str(trouble)] += 1
            raise
        self.sent.append((update.done or 0, at))


@dataclass
class Shown:
    """What a watch of the jobs has shown: by job, its steps in their order, and when."""

    steps: defaultdict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    times: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def take(self, job: Object) -> None:
        step = ((job.get("status") or {}).get("progress") or {}).get("step")
        steps = self.steps[uid_of(job)]
        if step is not None and step > (steps[-1] if steps else -1):
            steps.append(step)
            self.times[uid_of(job)].append(time.monotonic())

    def after(self, job: str, step: int, sent: float) -> float | None:
        """Seconds from the sending of a step until it, or a later one, was shown; None where it is not yet."""
        place = bisect_left(self.steps[job], step)
        return self.times[job][place] - sent if place < len(self.steps[job]) else None


@contextmanager
def following(cluster: Cluster, namespace: str) -> Iterator[Shown]:
    """Watch the jobs until the block ends."""
    shown, over = Shown(), threading.Event()

    def follow() -> None:
        while not over.is_set():
            with suppress(HTTPError):
                for change, job in cluster.api.watch(FINE_TUNE_JOB.path(namespace), stop=over.is_set):
                    if change != "DELETED":
                        shown.take(job)

    with _thread(follow, over):
        yield shown


@contextmanager
def training(trainers: Sequence[Trainer]) -> Iterator[None]:
    """Have all of them report until the block ends."""
    over = threading.Event()

    def drive(mine: Sequence[Trainer]) -> None:
        while not over.is_set():
            begun = time.monotonic()
            for trainer in mine:
                trainer.look()
            over.wait(max(0.0, begun + LOOK_SECONDS - time.monotonic()))

    with ExitStack() as stack:
        for first in range(THREADS):
            stack.enter_context(_thread(lambda first=first: drive(trainers[first::THREADS]), over))
        yield


@contextmanager
def asking(operator: Operator) -> Iterator[list[float]]:
    """Ask /healthz, as a kubelet does but more often, and scrape, as Prometheus does: seconds to each answer of the former."""
    over, taken = threading.Event(), list[float]()

    def ask() -> None:
        while not over.wait(0.5):
            begun = time.monotonic()
            code = operator.asked("healthz")
            taken.append(time.monotonic() - begun if code == 200 else float("inf"))

    def scrape() -> None:
        while not over.wait(10):
            operator.metrics()

    with _thread(ask, over), _thread(scrape, over):
        yield taken


@contextmanager
def _thread(work: object, over: threading.Event) -> Iterator[None]:
    """A thread beside the block, which sets `over` at its end."""
    thread = threading.Thread(target=work)  # type: ignore[arg-type]
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(90)


def trainers_of(bench: Bench, port: int, folder: Path) -> list[Trainer]:
    """A trainer for each pod of the crowd, with a token of its own; they begin one after the other, as pods do."""
    cluster = bench.cluster
    pods = [pod for pod in cluster.api.items(POD.path(bench.ours.namespace)) if pod["status"].get("phase") == "Running"]
    (folder / "ca.crt").write_text(authority_of(pods[0]))

    def write_token(pod: Object) -> Path:
        path = folder / str(pod["metadata"]["name"])
        path.write_text(token(cluster.api, pod))
        return path

    with ThreadPoolExecutor(SENDERS) as askers:
        tokens = list(askers.map(write_token, pods))
    url, begins = f"https://127.0.0.1:{port}{PATH}", time.monotonic()
    return [
        Trainer(
            job_uid_label(pod) or "", HttpsSender(url, token=path, authority=folder / "ca.crt"), begins + SEND_SECONDS * number / len(pods)
        )
        for number, (pod, path) in enumerate(zip(pods, tokens, strict=True))
    ]


def measure(bench: Bench, operator: Operator, trainers: Sequence[Trainer], shown: Shown, seconds: float, table: Table) -> None:
    """The figures of so many seconds, while all report."""
    with asking(operator) as healthy:
        log = bench.cluster.audit_log
        start, processor, begun = audit.size(log), cpu_seconds(operator), time.monotonic()
        time.sleep(seconds)
        end, processor = time.monotonic(), cpu_seconds(operator) - processor
        counted = writes(log, start, bench.ours.namespace, user=USER)
    reports = [(trainer.job, step, at) for trainer in trainers for step, at in list(trainer.sent) if begun <= at < end]
    deadline = time.monotonic() + LAST_SECONDS
    while time.monotonic() < deadline and any(shown.after(*report) is None for report in reports):
        time.sleep(0.5)
    ages = sorted(age if (age := shown.after(*report)) is not None else float("inf") for report in reports)
    took = end - begun
    refused = sum((trainer.refused for trainer in trainers), Counter[str]())
    say(f"{len(reports) / took:.0f} reports a second taken; refused since the start: {dict(refused.most_common(3)) or 'none'}")
    table.most(
        f"seconds until a report is shown: p50 {at(ages, 50):.1f}, p99 {at(ages, 99):.1f}, the last {ages[-1]:.1f}", at(ages, 99), STALENESS
    )
    table.most(f"writes a second: {counted.total() / took:.1f} ({told(counted, 1)})", round(counted.total() / took, 1), WRITES)
    table.most(f"the operator's cores: {processor / took:.2f}", processor / took, CORES)
    healthy = sorted(healthy)
    table.most(f"seconds to an answer of /healthz: p50 {at(healthy, 50):.3f}, the slowest {healthy[-1]:.2f}", healthy[-1], HEALTHY)
    files, found = operator.open_files(), peak(operator)
    table.most(f"memory: {operator.resident():.0f} MB, peak {found:.0f} MB; {files} open files", found, RESIDENT)


def at(values: Sequence[float], percent: int) -> float:
    """A percentile of what is sorted."""
    return values[min(len(values) - 1, len(values) * percent // 100)]


@contextmanager
def flood(port: int, folder: Path, token_of: Path, seconds: float) -> Iterator[None]:
    """One pod that sends as much as it can, from a process of its own."""
    command = [
        sys.executable,
        "-m",
        "tests.bench.operator.flood",
        str(port),
        str(folder / "ca.crt"),
        str(token_of),
        str(CONNECTIONS),
        str(seconds),
    ]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        yield
    finally:
        said, _ = process.communicate(timeout=seconds + 60)
        say(said.strip())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1000, help="jobs that report (1000)")
    parser.add_argument("--seconds", type=float, default=120, help="seconds that are measured (120)")
    parser.add_argument("--flood", type=float, default=30, help="seconds in which one pod sends as much as it can (30; 0 for none)")
    options = parser.parse_args()
    end_in_order()
    table = Table(say)
    with ExitStack() as stack:
        bench = stack.enter_context(ground("reporting", say, 60, fsync=True))
        bench.cluster.api.post("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
        bench.cluster.api.post(secret_path().rpartition("/")[0], {"metadata": {"name": SECRET}})
        operator = stack.enter_context(bench.operator(*FLAGS, "--progress-port", "0"))
        bench.fill(options.jobs, 0)
        say(f"{options.jobs} jobs run: {operator.resident():.0f} MB, peak {peak(operator):.0f} MB")
        (pods := bench.folder / "pods").mkdir()
        trainers = trainers_of(bench, port_of(operator.log), pods)
        with following(bench.cluster, bench.ours.namespace) as shown, training(trainers):
            time.sleep(SETTLE_SECONDS)
            measure(bench, operator, trainers, shown, options.seconds, table)
            if options.flood:
                say(f"one pod sends as much as it can over {CONNECTIONS} connections, for {options.flood:.0f} s")
                port, loudest = port_of(operator.log), min(path for path in pods.iterdir() if path.name != "ca.crt")
                with flood(port, pods, loudest, options.flood):
                    measure(bench, operator, trainers[1:], shown, options.flood, table)
        operator.stop()
    return table.code


if __name__ == "__main__":
    sys.exit(main())
