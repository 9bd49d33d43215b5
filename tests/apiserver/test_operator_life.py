"""A job's life through the operator's machinery, on a real API server: who is asked, what is written, and what a restart costs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from finetune_api import constants as c
from finetune_operator.kinds import FINE_TUNE_JOB
from tests.apiserver.operators import WHOLE, Operator
from tests.apiserver.proxy import Proxy
from tests.apiserver.recorder import Recorder
from tests.bench.operator.load import RUNS, Crowd, fine_tune_job, runtimes
from tests.builders import job, stage
from tests.cluster import Cluster
from tests.cluster.api import Api
from tests.cluster.pods import await_value

Body = dict[str, Any]
ENDS_AT_ONCE = {"test-cluster/finish-after": "0s"}


@pytest.fixture
def proxy(control_plane: Cluster, tmp_path: Path) -> Iterator[Proxy]:
    with Proxy(control_plane, tmp_path) as proxy:
        yield proxy


def jobs_path(namespace: str) -> str:
    return f"/apis/{c.API_VERSION}/namespaces/{namespace}/{c.PLURAL}"


def submit(api: Api, namespace: str, name: str, **annotations: str) -> Body:
    manifest = job(stage("only"))
    manifest["metadata"] = {"name": name, "annotations": annotations}
    return api.post(jobs_path(namespace), manifest)


def await_phase(api: Api, namespace: str, name: str, phase: str) -> Body:
    path = f"{jobs_path(namespace)}/{name}"
    return await_value(
        lambda: found if (found := api.get(path)).get("status", {}).get("phase") == phase else None, what=f"{name} is {phase}"
    )


def batch_jobs(api: Api, namespace: str) -> list[Body]:
    return api.items(f"/apis/batch/v1/namespaces/{namespace}/jobs")


def test_a_job_is_made_runs_and_ends_in_at_most_four_writes_and_its_events(
    control_plane: Cluster, namespace: str, proxy: Proxy, tmp_path: Path
) -> None:
    api = control_plane.api
    with Operator.running(proxy.kubeconfig, tmp_path / "log") as operator:
        submit(api, namespace, "support", **{"test-cluster/finish-after": "2s"})
        ended = await_phase(api, namespace, "support", "Succeeded")

        def reasons() -> set[str] | None:
            """Of the Events, once the end has one."""
            events = api.items(f"/api/v1/namespaces/{namespace}/events", fieldSelector="involvedObject.kind=FineTuneJob")
            found = {event["reason"] for event in events}
            return found if "Finished" in found else None

        told = await_value(reasons, what="an Event of the end")
        assert operator.stop() == 0
    assert "finalizers" not in ended["metadata"]
    assert told <= {"Started", "Finished"}
    path = f"{jobs_path(namespace)}/support/status"
    written = [(write.method, write.path.partition("?")[0]) for write in proxy.writes(namespace) if "/events" not in write.path]
    # Pending, Running, Succeeded; on a slow machine two of them are seen at once.
    assert written[0] == ("POST", f"/apis/batch/v1/namespaces/{namespace}/jobs")
    assert set(written[1:]) == {("PUT", path)} and len(written) <= 4


def test_a_stop_ends_well_and_soon(control_plane: Cluster, tmp_path: Path) -> None:
    with Operator.running(control_plane.kubeconfig, tmp_path / "log") as operator:
        begun = time.monotonic()
        assert operator.stop() == 0, operator.text()
        assert time.monotonic() - begun < 25  # a kubelet gives it 30 s


def test_a_part_that_dies_ends_the_process(control_plane: Cluster, tmp_path: Path) -> None:
    with Operator.running(control_plane.kubeconfig, tmp_path / "first") as first:
        second = Operator(control_plane.kubeconfig, tmp_path / "second", "--probes-port", str(first.port()))
        assert second.process.wait(120) == 1, second.text()


def test_finished_jobs_cost_nothing_over_three_re_lists_and_a_restart(
    control_plane: Cluster, namespace: str, proxy: Proxy, tmp_path: Path
) -> None:
    api = control_plane.api
    with Operator.running(control_plane.kubeconfig, tmp_path / "first"):
        for number in range(10):
            submit(api, namespace, f"job-{number}", **ENDS_AT_ONCE)
        for number in range(10):
            await_phase(api, namespace, f"job-{number}", "Succeeded")
    with Operator.running(proxy.kubeconfig, tmp_path / "second", "--relist-seconds", "5"):
        time.sleep(17)
    named = [request.path for request in proxy.requests if namespace in request.path]
    assert named == []


def test_an_edit_after_the_end_is_looked_at(control_plane: Cluster, namespace: str, tmp_path: Path) -> None:
    api = control_plane.api
    with Operator.running(control_plane.kubeconfig, tmp_path / "log"):
        submit(api, namespace, "support", **ENDS_AT_ONCE)
        await_phase(api, namespace, "support", "Succeeded")
        path = f"{jobs_path(namespace)}/support"
        api.patch(path, {"spec": {"suspend": True}})
        api.patch(f"{path}/status", {"status": None})
        await_phase(api, namespace, "support", "Succeeded")


def test_two_operators_at_once_make_no_job_twice(control_plane: Cluster, namespace: str, tmp_path: Path) -> None:
    api = control_plane.api
    names = [f"job-{number}" for number in range(20)]
    with Operator.running(control_plane.kubeconfig, tmp_path / "a") as a, Operator.running(control_plane.kubeconfig, tmp_path / "b") as b:
        for name in names:
            submit(api, namespace, name, **ENDS_AT_ONCE)
        for name in names:
            await_phase(api, namespace, name, "Succeeded")
        assert a.stop() == b.stop() == 0
    assert len(batch_jobs(api, namespace)) == len(names)
    assert "Traceback" not in a.text() + b.text()


def test_two_whole_operators_at_once_make_no_job_twice(control_plane: Cluster, tmp_path: Path) -> None:
    """The same with the product's decisions: each reads, makes and writes beside the other."""
    config = control_plane.kubeconfig
    with ExitStack() as stack:
        stack.enter_context(runtimes(control_plane))
        crowd = stack.enter_context(Crowd.of(control_plane, FINE_TUNE_JOB))
        recorder = stack.enter_context(Recorder(control_plane.api, crowd.namespace))
        a, b = (stack.enter_context(Operator.running(config, tmp_path / name, program=WHOLE)) for name in "ab")
        uids = crowd.post(fine_tune_job(f"job-{number}", RUNS) for number in range(20))
        crowd.await_phase(uids, "Succeeded", patience=120)
        assert a.stop() == b.stop() == 0
        recorder.await_all()
        assert recorder.duplicates(uids) == []
        assert [len(recorder.jobs(uid)) for uid in uids] == [1] * len(uids)
        for found in control_plane.api.items(jobs_path(crowd.namespace)):
            assert [(each["number"], each["reason"]) for each in found["status"]["attempts"]] == [(1, "Succeeded")]
            assert "budgets" not in found["status"]
    assert "Traceback" not in a.text() + b.text()


def test_jobs_that_were_there_before_the_operator_are_taken_up(control_plane: Cluster, namespace: str, tmp_path: Path) -> None:
    api = control_plane.api
    submit(api, namespace, "early", **ENDS_AT_ONCE)
    with Operator.running(control_plane.kubeconfig, tmp_path / "log"):
        await_phase(api, namespace, "early", "Succeeded")


def test_a_job_deleted_while_no_operator_runs_takes_its_children_along(control_plane: Cluster, namespace: str, tmp_path: Path) -> None:
    api = control_plane.api
    with Operator.running(control_plane.kubeconfig, tmp_path / "log"):
        submit(api, namespace, "support")
        await_phase(api, namespace, "support", "Running")
    api.delete(f"{jobs_path(namespace)}/support")
    await_value(lambda: not batch_jobs(api, namespace), what="no Job is left")


def test_a_job_made_again_under_its_name_within_a_second_is_another(control_plane: Cluster, namespace: str, tmp_path: Path) -> None:
    api = control_plane.api
    with Operator.running(control_plane.kubeconfig, tmp_path / "log"):
        first = submit(api, namespace, "support", **ENDS_AT_ONCE)
        api.delete(f"{jobs_path(namespace)}/support")
        second = submit(api, namespace, "support", **ENDS_AT_ONCE)
        ended = await_phase(api, namespace, "support", "Succeeded")
    assert ended["metadata"]["uid"] == second["metadata"]["uid"] != first["metadata"]["uid"]


def test_a_child_that_lost_our_labels_is_not_made_again(control_plane: Cluster, namespace: str, tmp_path: Path) -> None:
    api = control_plane.api
    with Operator.running(control_plane.kubeconfig, tmp_path / "log"):
        submit(api, namespace, "support")
        await_phase(api, namespace, "support", "Running")
        (child,) = batch_jobs(api, namespace)
        path = f"/apis/batch/v1/namespaces/{namespace}/jobs/{child['metadata']['name']}"
        api.patch(path, {"metadata": {"labels": {c.MANAGED_LABEL: None, c.JOB_UID_LABEL: None}}})
        api.patch(f"{jobs_path(namespace)}/support", {"metadata": {"labels": {"looked": "at"}}})
        time.sleep(3)
        assert [found["metadata"]["uid"] for found in batch_jobs(api, namespace)] == [child["metadata"]["uid"]]
        await_phase(api, namespace, "support", "Running")


def test_a_job_of_somebody_else_under_our_name_is_not_adopted(control_plane: Cluster, namespace: str, tmp_path: Path) -> None:
    api = control_plane.api
    manifest = submit(api, namespace, "support", **ENDS_AT_ONCE)
    name = f"tiny-support-{manifest['metadata']['uid'][:8]}"
    pod = {"restartPolicy": "Never", "containers": [{"name": "theirs", "image": "example/theirs"}]}
    theirs = {"metadata": {"name": name}, "spec": {"suspend": True, "template": {"spec": pod}}}
    api.post(f"/apis/batch/v1/namespaces/{namespace}/jobs", theirs)
    with Operator.running(control_plane.kubeconfig, tmp_path / "log"):
        await_phase(api, namespace, "support", "Failed")
    (found,) = batch_jobs(api, namespace)
    assert "ownerReferences" not in found["metadata"]


def test_what_a_quota_refuses_is_told(control_plane: Cluster, namespace: str, tmp_path: Path) -> None:
    api = control_plane.api
    quota = {"metadata": {"name": "none"}, "spec": {"hard": {"count/jobs.batch": "0"}}}
    api.post(f"/api/v1/namespaces/{namespace}/resourcequotas", quota)
    await_value(
        lambda: api.get(f"/api/v1/namespaces/{namespace}/resourcequotas/none").get("status", {}).get("hard"), what="the quota counts"
    )
    with Operator.running(control_plane.kubeconfig, tmp_path / "log"):
        submit(api, namespace, "support")
        await_phase(api, namespace, "support", "Failed")
    events = api.items(f"/api/v1/namespaces/{namespace}/events", fieldSelector="reason=Refused")
    assert "exceeded quota" in events[0]["message"]


def test_namespaced_mode_serves_the_namespaces_that_it_names(control_plane: Cluster, namespace: str, tmp_path: Path) -> None:
    api = control_plane.api
    submit(api, "default", "elsewhere", **ENDS_AT_ONCE)
    try:
        with Operator.running(control_plane.kubeconfig, tmp_path / "log", "--namespaces", f"{namespace},kube-public"):
            submit(api, namespace, "here", **ENDS_AT_ONCE)
            await_phase(api, namespace, "here", "Succeeded")
            assert "phase" not in api.get(f"{jobs_path('default')}/elsewhere").get("status", {})
    finally:
        api.delete(f"{jobs_path('default')}/elsewhere")
