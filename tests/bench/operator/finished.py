"""Ten thousand jobs that have ended, beside an operator that starts: `python -m tests.bench.operator.finished [--jobs N] [--relist N]`.

One job is run to its end by the operator. The others are written in its image, straight into etcd, as a backup is restored: what the API
server has stored of the FineTuneJob with its whole status, of its batch Job and of its pod, byte by byte, under the names, uids and owners
that they would have. What counts is what an operator makes of them.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import urllib.request
from base64 import b64decode, b64encode
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

from finetune_api import constants as c
from finetune_operator.kinds import FINE_TUNE_JOB, JOB, POD, Kind, uid_of
from finetune_operator.names import prefix
from tests.bench.operator.load import ENDS, SENDERS, fine_tune_job
from tests.bench.operator.measure import Bench, cpu_seconds, ground, peak
from tests.bench.operator.table import Table
from tests.bench.operator.writes import told
from tests.bench.stopping import end_in_order
from tests.cluster import Cluster
from tests.cluster.__main__ import sayer
from tests.cluster.api import Object
from tests.cluster.pods import await_value

RESIDENT, RESTART = 160.0, 15.0
DIGITS: Final = 5
"""Of a job's number: every name is as long as another, so that it can stand in its place in what is stored."""
FOLDERS: Final = {FINE_TUNE_JOB: f"{c.GROUP}/{c.PLURAL}", JOB: "jobs", POD: "pods"}
say = sayer()


@dataclass(frozen=True)
class Family:
    """A FineTuneJob that has ended, its Jobs, and their pods, as they are stored."""

    name: str
    uids: tuple[str, ...]
    """The FineTuneJob's first."""
    stored: Mapping[str, bytes]
    """By key."""

    @classmethod
    def of(cls, cluster: Cluster, namespace: str, name: str) -> Family:
        """As it stands, once no controller has anything left to do with it."""
        job = cluster.api.get(FINE_TUNE_JOB.path(namespace, name))
        selector = f"{c.JOB_UID_LABEL}={uid_of(job)}"

        def children(kind: Kind) -> list[Object]:
            return cluster.api.items(kind.path(namespace), labelSelector=selector)

        await_value(lambda: not any(pod["metadata"].get("finalizers") for pod in children(POD)), what="pods that their Job has counted")
        found = [(FINE_TUNE_JOB, job), *((kind, child) for kind in (JOB, POD) for child in children(kind))]
        keys = [f"/registry/{FOLDERS[kind]}/{namespace}/{each['metadata']['name']}" for kind, each in found]
        return cls(name, tuple(uid_of(each) for _, each in found), {key: read(cluster, key) for key in keys})

    def named(self, name: str) -> Mapping[str, bytes]:
        """What is stored of another one, of this name, which must be as long."""
        uids = {uid: str(uuid4()) for uid in self.uids}
        own = self.uids[0]
        changes = {prefix(self.name, own): prefix(name, uids[own]), **uids, self.name: name}

        def changed(text: bytes) -> bytes:
            for old, new in changes.items():
                text = text.replace(old.encode(), new.encode())
            return text

        return {changed(key.encode()).decode(): changed(value) for key, value in self.stored.items()}


def read(cluster: Cluster, key: str) -> bytes:
    """What etcd holds under a key."""
    return b64decode(_ask(cluster, "range", {"key": _text(key.encode())})["kvs"][0]["value"])


def write(cluster: Cluster, values: Mapping[str, bytes]) -> None:
    """Put them into etcd, in their order: each has a revision of its own, as if the API server had written it."""
    for key, value in values.items():
        _ask(cluster, "put", {"key": _text(key.encode()), "value": _text(value)})


def _ask(cluster: Cluster, what: str, body: object) -> Any:
    request = urllib.request.Request(f"{cluster.layout.etcd}/v3/kv/{what}", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


def _text(value: bytes) -> str:
    return b64encode(value).decode()


def fill(bench: Bench, jobs: int) -> None:
    """Have so many FineTuneJobs that have ended."""
    names = [f"job-{number:0{DIGITS}}" for number in range(jobs)]
    with bench.operator() as operator:
        bench.ours.run([fine_tune_job(names[0], ENDS)], patience=300)
        family = Family.of(bench.cluster, bench.ours.namespace, names[0])
        operator.stop()
    families = [family.named(name) for name in names[1:]]
    with ThreadPoolExecutor(SENDERS) as senders:
        list(senders.map(lambda each: write(bench.cluster, each), families))
    last = [*family.stored, *(key for each in families[-SENDERS:] for key in each)]
    bench.made = jobs
    await_value(
        lambda: all(served(bench.cluster, key) for key in last), what="the API server's cache having the last jobs", timeout=600, every=1
    )


def served(cluster: Cluster, key: str) -> bool:
    """Whether the API server's cache has what is stored under a key."""
    folder, namespace, name = key.removeprefix("/registry/").rsplit("/", 2)
    kind = next(kind for kind, its in FOLDERS.items() if its == folder)
    return bool(cluster.api.items(kind.path(namespace), fieldSelector=f"metadata.name={name}", resourceVersion="0"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000, help="jobs that have ended (10000)")
    parser.add_argument("--relist", type=int, default=10, help="seconds from one re-list to the next (10; 60 where nobody says)")
    options = parser.parse_args()
    end_in_order()
    table = Table(say)
    with ground("finished", say, options.relist) as bench:
        fill(bench, options.jobs)
        with bench.operator() as operator:
            say(f"started beside {bench.made} jobs: {operator.resident():.0f} MB, peak {peak(operator):.0f} MB")
            silent = bench.quiet()
            resident, found = operator.resident(), peak(operator)
            table.most(f"resident memory, {bench.made} jobs that have ended: {resident:.0f} MB (peak {found:.0f} MB)", resident, RESIDENT)
            table.most(f"writes in three re-lists of {bench.made} jobs: {told(silent, 1)}", silent.total(), 0)
            before, begun = cpu_seconds(operator), time.monotonic()
            time.sleep(3 * options.relist)
            cost = 100 * (cpu_seconds(operator) - before) / (time.monotonic() - begun)
            say(f"its CPU while nothing happens, a re-list each {options.relist} s: {cost:.1f} % of a core")
            text = operator.metrics()
            say(f"a scrape: {text.count(chr(10))} lines, {len(text) / 1e6:.1f} MB; then {operator.resident():.0f} MB")
            operator.stop()
        restarted = bench.restart()
        table.most(
            f"restart: ready after {restarted.ready:.1f} s, caught up after {restarted.caught_up:.1f} s, {restarted.processor:.1f} s of CPU",
            restarted.caught_up,
            RESTART,
        )
        table.most(f"writes for what is unchanged: {told(restarted.unchanged, 1)}", restarted.unchanged.total(), 0)
        say(f"then {restarted.resident:.0f} MB, peak {restarted.peak:.0f} MB")
    return table.code


if __name__ == "__main__":
    sys.exit(main())
