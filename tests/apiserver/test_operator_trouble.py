"""Watches that go deaf, an API server that is away, answers that are lost: what the operator does about each."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune_api import constants as c
from tests.apiserver.operators import TINY, WHOLE, Operator
from tests.apiserver.proxy import Proxy, Request
from tests.apiserver.test_operator_life import ENDS_AT_ONCE, await_phase, batch_jobs, jobs_path, submit
from tests.cluster import Cluster
from tests.cluster.pods import await_value

QUICK = ("--relist-seconds", "5", "--deaf-seconds", "10")


@pytest.fixture
def proxy(control_plane: Cluster, tmp_path: Path) -> Iterator[Proxy]:
    with Proxy(control_plane, tmp_path) as proxy:
        yield proxy


@pytest.mark.parametrize("plural", ["pods", "jobs", "finetunejobs"])
def test_a_deaf_watch_fails_the_liveness_probe_and_its_events_are_made_up_for(
    control_plane: Cluster, namespace: str, proxy: Proxy, tmp_path: Path, plural: str
) -> None:
    api = control_plane.api
    with Operator.running(proxy.kubeconfig, tmp_path / "log", *QUICK) as operator:
        assert operator.asked("healthz") == 200
        proxy.deaf = re.compile(f"/{plural}$")
        submit(api, namespace, "support", **ENDS_AT_ONCE)
        await_phase(api, namespace, "support", "Succeeded")
        await_value(lambda: operator.asked("healthz") == 503, what=f"the operator knows that it hears no {plural}")


def test_a_watch_that_hears_is_never_called_deaf(control_plane: Cluster, namespace: str, proxy: Proxy, tmp_path: Path) -> None:
    api = control_plane.api
    with Operator.running(proxy.kubeconfig, tmp_path / "log", *QUICK) as operator:
        for number in range(12):
            submit(api, namespace, f"job-{number}", **ENDS_AT_ONCE)
            time.sleep(2)
            assert operator.asked("healthz") == 200


def test_an_api_server_that_is_away_is_waited_for(control_plane: Cluster, namespace: str, proxy: Proxy, tmp_path: Path) -> None:
    api = control_plane.api
    with Operator.running(proxy.kubeconfig, tmp_path / "log", *QUICK) as operator:
        submit(api, namespace, "before", **{"test-cluster/finish-after": "5s"})
        await_phase(api, namespace, "before", "Running")
        proxy.down = True
        submit(api, namespace, "meanwhile", **ENDS_AT_ONCE)
        time.sleep(25)
        assert operator.asked("healthz") == 200
        assert operator.process.poll() is None, operator.text()
        proxy.down = False
        for name in ("before", "meanwhile"):
            await_phase(api, namespace, name, "Succeeded")
        assert operator.stop() == 0


def test_an_api_server_that_answers_503_for_longer_than_kopf_waits_is_waited_for(
    control_plane: Cluster, namespace: str, proxy: Proxy, tmp_path: Path
) -> None:
    """By itself Kopf gives up its watches after 54 s of back-offs."""
    api = control_plane.api
    with Operator.running(proxy.kubeconfig, tmp_path / "log", *QUICK) as operator:
        submit(api, namespace, "before", **{"test-cluster/finish-after": "5s"})
        await_phase(api, namespace, "before", "Running")
        proxy.refusing = 503, re.compile("")
        submit(api, namespace, "meanwhile", **ENDS_AT_ONCE)
        time.sleep(75)
        assert operator.asked("healthz") == 200
        assert operator.process.poll() is None, operator.text()
        proxy.refusing = None
        for name in ("before", "meanwhile"):
            await_phase(api, namespace, name, "Succeeded")
        assert operator.stop() == 0


@pytest.mark.parametrize("program", [TINY, WHOLE])
def test_an_operator_that_starts_while_the_api_server_is_away_waits_too(
    control_plane: Cluster, namespace: str, proxy: Proxy, tmp_path: Path, program: str
) -> None:
    proxy.refusing = 503, re.compile("")
    operator = Operator(proxy.kubeconfig, tmp_path / "log", program=program)
    try:
        await_value(lambda: "can't be asked yet" in operator.text(), what="it has asked")
        await_value(lambda: operator.asked("healthz") == 200, what="its probes answer")
        assert operator.process.poll() is None, operator.text()
        assert operator.asked("readyz") == 503
        proxy.refusing = None
        operator.await_ready()
        assert operator.stop() == 0
    finally:
        operator.kill()


def test_a_cluster_without_the_kinds_is_told_at_once(control_plane: Cluster, proxy: Proxy, tmp_path: Path) -> None:
    proxy.refusing = 404, re.compile(f"^/apis/{c.GROUP}(/|$)")
    operator = Operator(proxy.kubeconfig, tmp_path / "log", program=WHOLE)
    try:
        assert operator.process.wait(60) == 2
        assert f"the API server does not know {c.PLURAL}.{c.GROUP}: apply the CRDs first (crds/)" in operator.text()
    finally:
        operator.kill()


def test_answers_that_are_lost_make_nothing_twice(control_plane: Cluster, namespace: str, proxy: Proxy, tmp_path: Path) -> None:
    api, lost = control_plane.api, set[str]()

    def lose_the_first(request: Request) -> None:
        place = f"{request.method} {request.path.partition('?')[0]}"
        if place not in lost and namespace in place:
            lost.add(place)
            raise ConnectionError

    proxy.after = lose_the_first
    with Operator.running(proxy.kubeconfig, tmp_path / "log"):
        submit(api, namespace, "support", **ENDS_AT_ONCE)
        await_phase(api, namespace, "support", "Succeeded")
    assert len(lost) >= 2
    assert len(batch_jobs(api, namespace)) == 1


def test_an_operator_killed_after_each_of_its_writes_ends_the_same(
    control_plane: Cluster, namespace: str, proxy: Proxy, tmp_path: Path
) -> None:
    api = control_plane.api
    operators: list[Operator] = []
    written: list[str] = []

    def kill(request: Request) -> None:
        if namespace not in request.path:
            return
        written.append(f"{request.method} {request.path}")
        operators[-1].kill()
        raise ConnectionError

    proxy.after = kill
    submit(api, namespace, "support", **ENDS_AT_ONCE)
    try:
        for life in range(8):
            operators.append(Operator(proxy.kubeconfig, tmp_path / f"log-{life}"))
            await_value(lambda: operators[-1].process.poll() is not None or _ended(control_plane, namespace), what="a death or the end")
            if _ended(control_plane, namespace):
                break
    finally:
        operators[-1].kill()
    assert _ended(control_plane, namespace), written
    assert len(batch_jobs(api, namespace)) == 1


def _ended(cluster: Cluster, namespace: str) -> bool:
    return bool(cluster.api.get(f"{jobs_path(namespace)}/support").get("status", {}).get("phase") == "Succeeded")
