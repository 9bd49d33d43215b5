"""Jobs in numbers: FineTuneJobs, or the plain batch Jobs that they are compared with, made at once and followed by watches."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Final

from urllib3.exceptions import HTTPError

from finetune_api import constants as c
from finetune_operator.kinds import CLAIM, JOB, POD, RUNTIME, Kind, controller_of, job_uid_label, uid_of
from tests.builders import Document, edited, job, stage
from tests.cluster import Cluster
from tests.cluster.api import Object
from tests.cluster.namespaces import fresh_namespace
from tests.cluster.pods import await_value

SENDERS: Final = 4
IMAGE: Final = "registry.example.com/trainer@sha256:" + "a" * 64
ENDS: Final = "bench-ends"
PREPARES: Final = "bench-prepares"
RUNS: Final = "bench-runs"
STAYS: Final = "bench-stays"
LAST_WORDS: Final = (
    '{"outcome":"Succeeded","exitCode":0,"stage":"only","step":100,"artifacts":[{"kind":"adapter","uri":"pvc://runs/a","sha256":"'
    + "b" * 64
    + '","bytes":1048576}],"stages":[{"status":{"name":"only","phase":"Succeeded","metrics":{"loss":1.25}},"steps":100}]}'
)


def fine_tune_job(name: str, runtime: str) -> Document:
    """The smallest life: one stage, and `prepare` in the pod that trains."""
    rows = {"train": [{"uri": "hf://datasets/team/rows/train.jsonl"}]}
    return edited(job(stage("only", data=rows)), {"metadata.name": name, "spec.runtimeRef": {"name": runtime}})


def staged_job(name: str, runtime: str) -> Document:
    """A domain stage, then a task stage, each on data of its own."""
    rows = [{"train": [{"uri": f"hf://datasets/team/rows/{each}.jsonl"}]} for each in ("domain", "task")]
    stages = stage("domain", data=rows[0], handOver="merge"), stage("task", "supervised", data=rows[1])
    return edited(job(*stages), {"metadata.name": name, "spec.runtimeRef": {"name": runtime}})


def plain_job(name: str, *, seconds: int = 0) -> Document:
    """A Job whose one container ends at once, or after so many seconds."""
    container = {
        "name": "trainer",
        "image": IMAGE,
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    pod = {
        "restartPolicy": "Never",
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        "nodeSelector": {"type": "kwok"},
        "containers": [container],
    }
    template = {"metadata": {"annotations": _ending(LAST_WORDS, seconds)}, "spec": pod}
    return {"metadata": {"name": name}, "spec": {"backoffLimit": 0, "template": template}}


def _ending(message: str, seconds: int = 0) -> dict[str, str]:
    return {"test-cluster/finish-after": f"{seconds}s", "test-cluster/message": message}


@contextmanager
def runtimes(cluster: Cluster) -> Iterator[None]:
    """Runtimes for kwok's nodes: pods end at once, after a second, or when they are deleted; all but one prepare in the pod that trains."""
    kinds = {ENDS: _ending(LAST_WORDS), RUNS: _ending(LAST_WORDS, 1), PREPARES: _ending(LAST_WORDS, 1), STAYS: {}}
    for name, of_pods in kinds.items():
        spec: dict[str, Any] = {
            "image": IMAGE,
            "prepare": "ownPod" if name == PREPARES else "inTrainPod",
            "gpus": 0,
            "storage": {"claimName": "runs"},
            "nodeSelector": {"type": "kwok"},
            "podAnnotations": of_pods,
        }
        manifest = {"apiVersion": c.API_VERSION, "kind": c.RUNTIME_KIND, "metadata": {"name": name}, "spec": spec}
        cluster.api.post(RUNTIME.path(), manifest)
    try:
        yield
    finally:
        for name in kinds:
            cluster.api.delete(RUNTIME.path(None, name))


@dataclass(frozen=True)
class Batch:
    """How long a number of jobs took from the first request to the last end; seconds from a job's request to its pod, the median."""

    jobs: int
    seconds: float
    first_pod: float

    @property
    def rate(self) -> float:
        return self.jobs / self.seconds


@dataclass
class Crowd:
    """The jobs of one kind in a namespace of their own. Times are of the monotonic clock, by uid."""

    cluster: Cluster
    namespace: str
    kind: Kind
    posted: dict[str, float] = field(default_factory=dict)
    phases: dict[str, str] = field(default_factory=dict)
    ended: dict[str, float] = field(default_factory=dict)
    pods: dict[str, float] = field(default_factory=dict)
    _over: threading.Event = field(default_factory=threading.Event)

    @classmethod
    @contextmanager
    def of(cls, cluster: Cluster, kind: Kind) -> Iterator[Crowd]:
        """Followed in a new namespace with a claim `runs`, until the block ends."""
        with ExitStack() as stack:
            crowd = cls(cluster, stack.enter_context(fresh_namespace(cluster)), kind)
            crowd._make_claim()
            threads = [threading.Thread(target=crowd._follow, args=pair) for pair in ((kind, crowd._saw_job), (POD, crowd._saw_pod))]
            for thread in threads:
                thread.start()
            try:
                yield crowd
            finally:
                crowd._over.set()
                for thread in threads:
                    thread.join(30)

    def post(self, manifests: Iterable[Document]) -> list[str]:
        """Make them, from four connections at once. Returns their uids."""
        with ThreadPoolExecutor(SENDERS) as senders:
            return list(senders.map(self._post, manifests))

    def run(self, manifests: list[Document], *, patience: float) -> Batch:
        """Make them, and wait until all have succeeded, at most so many seconds."""
        begun = time.monotonic()
        uids = self.post(manifests)
        self.await_phase(uids, "Succeeded", patience=patience)
        seconds = max(self.ended[uid] for uid in uids) - begun
        return Batch(len(uids), seconds, median(self.pods[uid] - self.posted[uid] for uid in uids))

    def await_phase(self, uids: list[str], phase: str, *, patience: float) -> None:
        """Raises AssertionError where a job failed, or `patience` seconds have passed."""
        wanted = f"{len(uids)} {self.kind.plural} being {phase}"

        def reached() -> bool:
            failed = [uid for uid in uids if self.phases.get(uid) == "Failed"]
            assert not failed, f"{len(failed)} of {wanted} have failed, the first is {failed[0]} in {self.namespace}"
            return all(self.phases.get(uid) == phase for uid in uids)

        await_value(reached, what=wanted, timeout=patience, every=0.1)

    def _post(self, manifest: Document) -> str:
        at = time.monotonic()
        uid = uid_of(self.cluster.api.post(self.kind.path(self.namespace), manifest))
        self.posted[uid] = at
        return uid

    def _make_claim(self) -> None:
        wanted = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": "shared"}
        path = CLAIM.path(self.namespace)
        self.cluster.api.post(path, {"metadata": {"name": "runs"}, "spec": wanted})
        await_value(lambda: self.cluster.api.get(f"{path}/runs")["status"].get("phase") == "Bound", what="the claim being bound")

    def _follow(self, kind: Kind, take: Callable[[Object], None]) -> None:
        while not self._over.is_set():
            with suppress(HTTPError):  # an API server that has too much to do: what was missed is in the next watch's first events
                for change, found in self.cluster.api.watch(kind.path(self.namespace), stop=self._over.is_set):
                    if change in ("ADDED", "MODIFIED"):
                        take(found)

    def _saw_job(self, found: Object) -> None:
        phase = _phase(found) if self.kind is JOB else (found.get("status") or {}).get("phase", "")
        self.phases[uid_of(found)] = phase
        if phase == "Succeeded":
            self.ended.setdefault(uid_of(found), time.monotonic())

    def _saw_pod(self, found: Object) -> None:
        owner = controller_of(found) if self.kind is JOB else job_uid_label(found)
        if owner is not None:
            self.pods.setdefault(owner, time.monotonic())


def _phase(found: Object) -> str:
    true = {each["type"] for each in (found.get("status") or {}).get("conditions") or [] if each["status"] == "True"}
    return "Succeeded" if "Complete" in true else "Failed" if "Failed" in true else ""
