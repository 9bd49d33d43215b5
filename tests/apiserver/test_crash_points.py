"""The operator dies before, in and after each of its writes in the life of a job; every life ends the same, and no Job is ever made twice."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import zlib
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Final

import pytest

from finetune_api import constants as c
from finetune_operator import access
from finetune_operator.kinds import CLAIM, FINE_TUNE_JOB, JOB, NODE, POD, RUNTIME, controller_of, job_uid_label, key_of, uid_of
from finetune_operator.kube import ApiServer, list_all
from tests.apiserver.operators import WHOLE, Operator
from tests.apiserver.proxy import Proxy, Request
from tests.apiserver.puppet import Puppet
from tests.apiserver.recorder import Recorder
from tests.apiserver.trouble import runtime_manifest
from tests.apiserver.trouble_crash import NEVER, Fault, FaultyKube, Moment, Record, serve
from tests.apiserver.trouble_job import ROWS, published, said
from tests.apiserver.trouble_kubelet import Kubelet
from tests.apiserver.trouble_operator import Clock, Informer, Stack
from tests.builders import Document, edited, job, stage
from tests.cluster import Cluster
from tests.cluster.api import Object
from tests.cluster.namespaces import fresh_namespace
from tests.cluster.pods import await_value

GPU: Final = "crash.test/gpu"
THREE_STAGES: Final = job(
    stage("domain", handOver="merge", data=ROWS, resources={"gpus": 1}),
    stage("more", handOver="merge", data=ROWS, resources={"gpus": 1}),
    stage("task", data=ROWS, resources={"gpus": 2}),
)
WRITES: Final = (
    "create PersistentVolumeClaim",
    "create Job 0",
    "status Preparing Preparing",
    "create Event Preparing",
    "create Job 1",
    "status Running Training domain",
    "create Event Training",
    "create Job 2",
    "status Running Training task",
    "create Job report",
    "status Running Reporting",
    "create Event Reporting",
    "status Succeeded Succeeded",
    "create Event Succeeded",
)
"""Every write of an undisturbed life, in order: prepare, a segment of two stages, a segment of one, and the report of a long result."""
TIME_TO_END: Final = 900.0
"""Seconds; a minute is enough for an idle machine."""


class Frozen(Clock):
    """A clock that stands still, so that no status is written because a machine was slow."""

    def __init__(self) -> None:
        super().__init__()
        self._now = super().now()

    def now(self) -> Any:
        return self._now


def words(pod: Object) -> dict[str, str]:
    """What the trainers of this job say: the last one can't say all."""
    segment = pod["metadata"]["labels"][c.SEGMENT_LABEL]
    done = [{"status": {"name": name, "phase": "Succeeded"}, "steps": 10} for name in ("domain", "more", "task")]
    if segment == "report":
        evaluation = [{"suite": "in-domain", "metric": "loss", "baseline": 5.5, "stages": [{"stage": "task", "value": 3.25}]}]
        whole = published(stages=done, evaluation=evaluation, provenance={"seed": 42})
        data = base64.b64encode(zlib.compress(whole.encode())).decode()
        pages = [data[: len(data) // 2], data[len(data) // 2 :], ""]
        return {f"page-{number}": json.dumps({"page": number, "pages": 2, "data": page}) for number, page in enumerate(pages)}
    last = {"0": said(), "1": said(stages=done[:2]), "2": published(stages=done, truncated=True)}
    return {"trainer": last[segment]}


@pytest.fixture
def gpus(control_plane: Cluster) -> None:
    """Room for every life at once."""
    room = {"status": {"capacity": {GPU: "1000"}, "allocatable": {GPU: "1000"}}}
    for node in control_plane.api.items(NODE.path()):
        control_plane.api.patch(NODE.path(None, node["metadata"]["name"]) + "/status", room)


@pytest.fixture
def runtime(control_plane: Cluster, gpus: None) -> Iterator[str]:
    name = "crash-points"
    storage = {"claimTemplate": {"className": "local", "accessMode": "ReadWriteOnce", "size": "1Gi"}}
    manifest = runtime_manifest(name, prepare="ownPod", storage=storage, gpuResourceName=GPU)
    control_plane.api.post(RUNTIME.path(), manifest)
    yield name
    control_plane.api.delete(RUNTIME.path(None, name))


@pytest.mark.timeout(1200)
def test_a_life_that_ends_at_any_write_changes_nothing(control_plane: Cluster, runtime: str) -> None:
    api = control_plane.api
    records = [Record(Fault()), *(Record(Fault(write, moment)) for write, moment in product(WRITES, Moment))]
    with (
        fresh_namespace(control_plane) as namespace,
        Recorder(api, namespace) as recorder,
        Informer(control_plane, namespace) as informer,
        Kubelet(informer, Puppet(api), words),
    ):
        jobs = [api.post(FINE_TUNE_JOB.path(namespace), named(f"life-{number}", runtime)) for number in range(len(records))]
        asyncio.run(serve_all(control_plane, informer, jobs, records))
        recorder.await_all()
        ended = final_states(control_plane, namespace)
        undisturbed = ended[uid_of(jobs[0])]
        # A scheduler that takes its time may have the status say so in between.
        assert tuple(write for write in records[0].writes if write in WRITES) == WRITES
        assert undisturbed["status"]["phase"] == "Succeeded"
        assert undisturbed["status"]["evaluation"][0]["baseline"] == 5.5
        different = {
            str(record.fault): ended[uid_of(each)] for each, record in zip(jobs, records, strict=True) if ended[uid_of(each)] != undisturbed
        }
        assert different == {}
        assert [str(record.fault) for record in records[1:] if not record.struck] == []
        assert recorder.duplicates(map(uid_of, jobs)) == []
        assert all(len(recorder.jobs(uid_of(each))) == 4 for each in jobs)
    deaths = sum(record.lives - 1 for record in records)
    assert deaths == len(WRITES) * 3
    print(f"{deaths} deaths and {len(WRITES) * 2} broken connections at {len(WRITES)} writes: one end, 0 duplicate Jobs")


def test_a_process_that_is_killed_before_and_after_each_of_its_writes_ends_the_same(control_plane: Cluster, tmp_path: Path) -> None:
    """The operator as it is deployed, with SIGKILL: it never writes twice in a life, and each write is lost once before it goes through."""
    api, operators, lost, done = control_plane.api, list[Operator](), set[str](), list[str]()
    api.post(RUNTIME.path(), runtime_manifest("killed"))

    def before(request: Request) -> None:
        if (write := what(request)) not in lost:
            lost.add(write)
            operators[-1].kill()
            raise ConnectionError

    def after(request: Request) -> None:
        done.append(what(request))
        operators[-1].kill()
        raise ConnectionError

    with fresh_namespace(control_plane) as namespace, Recorder(api, namespace) as recorder, Proxy(control_plane, tmp_path) as proxy:
        claim = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": "shared"}
        api.post(CLAIM.path(namespace), {"metadata": {"name": "runs"}, "spec": claim})
        made = api.post(
            FINE_TUNE_JOB.path(namespace),
            {**edited(job(stage("task", data=ROWS)), {"metadata.name": "killed", "spec.runtimeRef": {"name": "killed"}})},
        )
        proxy.before, proxy.after = before, after

        puppet = Puppet(api)

        def ended() -> bool:
            """Has the pod run, and end once the status told that it runs."""
            phase = (api.get(FINE_TUNE_JOB.path(namespace, "killed")).get("status") or {}).get("phase")
            for pod in api.items(POD.path(namespace)):
                if pod["spec"].get("nodeName") and pod["status"]["phase"] == "Pending":
                    puppet.run(pod)
                if pod["status"]["phase"] == "Running" and phase == "Running":
                    puppet.finish(pod, message=published())
            return bool(phase == "Succeeded")

        try:
            for life in range(60):
                operators.append(Operator(proxy.kubeconfig, tmp_path / f"log-{life}", "--namespaces", namespace, program=WHOLE))
                await_value(lambda: operators[-1].process.poll() is not None or ended(), what="a death or the end", timeout=120)
                if ended():
                    break
        finally:
            operators[-1].kill()
            api.delete(RUNTIME.path(None, "killed"))
        assert ended(), done
        recorder.await_all()
        assert recorder.duplicates([uid_of(made)]) == []
        assert len(recorder.jobs(uid_of(made))) == 1
        status = api.get(FINE_TUNE_JOB.path(namespace, "killed"))["status"]
        assert [(each["number"], each["reason"]) for each in status["attempts"]] == [(1, "Succeeded")]
    assert [name for name in dict.fromkeys(done) if name.startswith("status")] == ["status Running", "status Succeeded"]
    assert len(operators) >= 6


def what(request: Request) -> str:
    """A write, in words that are the same when it is tried again."""
    body = json.loads(request.body)
    if request.method == "PUT":
        return f"status {body['status'].get('phase')}"
    return f"{request.method} {body.get('kind')} {(body.get('metadata') or {}).get('name')}"


def named(name: str, runtime: str) -> Document:
    return edited(THREE_STAGES, {"metadata.name": name, "spec.runtimeRef": {"name": runtime}})


async def serve_all(cluster: Cluster, informer: Informer, jobs: Sequence[Object], records: Sequence[Record]) -> None:
    """Serve each job by an operator of its own, until all have ended; then start every operator once more, which must write nothing."""
    kube, clock = ApiServer(partial(access.load, cluster.kubeconfig, None), user_agent="finetune-operator/crash-points"), Frozen()
    pairs = list(zip(jobs, records, strict=True))
    tasks = [asyncio.create_task(serve(each, kube, informer, clock, record)) for each, record in pairs]
    try:
        async with asyncio.timeout(TIME_TO_END):
            while not await all_ended(kube, jobs, records):
                for task in tasks:
                    if task.done():
                        task.result()
                await asyncio.sleep(0.5)
    except TimeoutError:
        still = [f"{record.fault}, after {record.writes[-1:]}" for record in records if WRITES[-1] not in record.writes]
        raise AssertionError(f"{len(still)} lives have not ended: {still[:10]}") from None
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    for each in jobs:
        again = Record(Fault())
        stack = Stack(FaultyKube(kube, again, lambda: None), clock)
        await stack.reconciler.reconcile(key_of(each))
        assert again.writes == [], "an operator that starts anew after the end writes something"
    await kube.close()


async def all_ended(kube: ApiServer, jobs: Sequence[Object], records: Sequence[Record]) -> bool:
    found = await list_all(kube, FINE_TUNE_JOB, jobs[0]["metadata"]["namespace"])
    phases = {(each.get("status") or {}).get("phase") for each in found}
    struck = all(record.struck or record.fault.write == NEVER for record in records)
    return phases == {"Succeeded"} and struck and records[0].writes[-1:] == [WRITES[-1]]


def final_states(cluster: Cluster, namespace: str) -> dict[str, Any]:
    """By uid, what each FineTuneJob and its children came to: without times, and with the same names for what has names of its own."""
    jobs = {uid_of(each): each for each in cluster.api.items(FINE_TUNE_JOB.path(namespace))}
    states: dict[str, Any] = {uid: {"status": neutral(each, each["status"])} for uid, each in jobs.items()}
    for kind in (JOB, CLAIM):
        for child in cluster.api.items(kind.path(namespace)):
            uid = controller_of(child) or job_uid_label(child) or ""
            if uid in jobs:
                ended = [(each["type"], each["status"]) for each in child["status"].get("conditions") or []]
                what = [child["metadata"]["name"], child["metadata"]["labels"], child["metadata"].get("ownerReferences"), ended]
                states[uid].setdefault(kind.plural, []).append(neutral(jobs[uid], what))
    return states


TIMES: Final = {"lastTransitionTime", "startedAt", "finishedAt", "usage"}


def neutral(job: Object, found: Any) -> Any:
    """The same for every job that came to the same."""
    text = json.dumps(without(found, TIMES), sort_keys=True)
    for own, neutral in ((uid_of(job), "UID"), (uid_of(job)[:8], "UID8"), (job["metadata"]["name"], "NAME")):
        text = text.replace(own, neutral)
    text = re.sub(r"(ft-NAME-UID8-\w+-\d+)-[a-z0-9]{5}", r"\1-POD", text)
    return json.loads(re.sub(r"(kwok|boot)-\d", r"\1-N", text))


def without(found: Any, names: set[str]) -> Any:
    if isinstance(found, dict):
        return {name: without(value, names) for name, value in found.items() if name not in names}
    return [without(each, names) for each in found] if isinstance(found, list) else found
