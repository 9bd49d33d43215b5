"""The door to the API server: each answer as the error that callers act on, and what goes over the wire."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import pytest
from kubernetes.aio.client import Configuration

from finetune_api import constants as c
from finetune_operator import access
from finetune_operator.clock import Clock
from finetune_operator.errors import AlreadyExists, Conflict, KubeError, NotFound, Refused, Transient
from finetune_operator.events import Recorder
from finetune_operator.kinds import CLAIM, FINE_TUNE_JOB, JOB, NODE, POD, SEEN_EVENT
from finetune_operator.kube import ApiServer, list_all
from finetune_operator.model import Note, Severity
from tests.apiserver.test_operator_life import submit
from tests.cluster import Cluster

T = TypeVar("T")
Body = dict[str, Any]
NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


def ask(cluster: Cluster, question: Callable[[ApiServer], Awaitable[T]]) -> T:
    """One conversation with the API server as the administrator."""

    async def conversation() -> T:
        kube = ApiServer(lambda: access.load(cluster.kubeconfig, None), user_agent="test")
        try:
            return await question(kube)
        finally:
            await kube.close()

    return asyncio.run(conversation())


def claim(namespace: str, name: str = "run", **labels: str) -> Body:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": spec,
    }


@pytest.mark.parametrize(
    ("expected", "code", "question"),
    [
        pytest.param(NotFound, 404, lambda kube, ns: kube.get(JOB, ns, "none"), id="an object that is not there"),
        pytest.param(NotFound, 404, lambda kube, ns: kube.create(claim("no-such-namespace")), id="a namespace that is not there"),
        pytest.param(AlreadyExists, 409, lambda kube, ns: kube.create(claim(ns, "taken")), id="a name that is taken"),
        pytest.param(Refused, 422, lambda kube, ns: kube.create(claim(ns, "Not A Name")), id="what no schema takes"),
        pytest.param(Conflict, 409, lambda kube, ns: kube.delete(CLAIM, ns, "taken", uid="another"), id="a deletion of another uid"),
        pytest.param(NotFound, 404, lambda kube, ns: kube.delete(CLAIM, ns, "none", uid="x"), id="a deletion of what is gone"),
    ],
)
def test_each_answer_is_its_error(
    control_plane: Cluster, namespace: str, expected: type[KubeError], code: int, question: Callable[[ApiServer, str], Awaitable[object]]
) -> None:
    async def conversation(kube: ApiServer) -> KubeError:
        await kube.create(claim(namespace, "taken"))
        with pytest.raises(expected) as caught:
            await question(kube, namespace)
        return caught.value

    error = ask(control_plane, conversation)
    assert error.code == code
    assert error.message


def test_who_may_not_is_refused_and_told_so(control_plane: Cluster, namespace: str) -> None:
    person = control_plane.user("nobody")

    async def conversation() -> None:
        kube = ApiServer(lambda: access.load(person, None), user_agent="test")
        try:
            with pytest.raises(Refused, match="nobody") as caught:
                await kube.get(POD, namespace, "x")
            assert (caught.value.code, caught.value.reason) == (403, "Forbidden")
        finally:
            await kube.close()

    asyncio.run(conversation())


def test_a_server_that_does_not_answer_is_a_matter_of_time() -> None:
    async def nowhere() -> Configuration:
        return Configuration(host="http://127.0.0.1:1")

    async def conversation() -> None:
        kube = ApiServer(nowhere, user_agent="test")
        try:
            with pytest.raises(Transient) as caught:
                await kube.get(NODE, None, "kwok-1")
            assert caught.value.code == 0
        finally:
            await kube.close()

    asyncio.run(conversation())


def test_every_answer_tells_the_time_also_one_that_refuses(control_plane: Cluster) -> None:
    clock = Clock(wall=lambda: datetime.now(UTC) + timedelta(hours=1))

    async def conversation() -> None:
        kube = ApiServer(lambda: access.load(control_plane.kubeconfig, None), user_agent="test", heard=clock.hear)
        try:
            with pytest.raises(NotFound):
                await kube.get(JOB, "default", "none")
        finally:
            await kube.close()

    asyncio.run(conversation())
    assert abs(clock.now() - datetime.now(UTC)) < timedelta(seconds=5)


def test_a_token_that_ran_out_is_read_again(control_plane: Cluster) -> None:
    good = control_plane.service_account("default", "default")
    loaded: list[str] = []

    async def load() -> Configuration:
        found = await access.load(good, None)
        if not loaded:
            found.api_key[access.BEARER] = "Bearer run-out"
        loaded.append(found.api_key[access.BEARER])
        return found

    async def conversation() -> frozenset[str]:
        kube = ApiServer(load, user_agent="test")
        try:
            with pytest.raises(Transient) as caught:
                await kube.served(c.API_VERSION)
            assert caught.value.code == 401
            return await kube.served(c.API_VERSION)
        finally:
            await kube.close()

    assert c.PLURAL in asyncio.run(conversation())
    assert len(loaded) == 2


def test_a_group_that_is_not_served_has_no_kinds(control_plane: Cluster) -> None:
    assert ask(control_plane, lambda kube: kube.served("nobody.example/v1")) == frozenset()


def test_long_lists_come_in_pages_and_whole(control_plane: Cluster, namespace: str) -> None:
    async def conversation(kube: ApiServer) -> tuple[list[int], list[Body]]:
        for number in range(202):
            metadata = {"name": f"claim-{number}", "namespace": namespace, "labels": {"listed": "true"}}
            await kube.create({**claim(namespace), "metadata": metadata})
        pages = [page async for page in kube.pages(CLAIM, namespace, labels="listed=true", metadata_only=True)]
        return [len(page) for page in pages], pages[0]

    sizes, items = ask(control_plane, conversation)
    assert sizes == [200, 2]
    assert (items[0]["apiVersion"], items[0]["kind"]) == ("v1", "PersistentVolumeClaim")
    assert "spec" not in items[0]


def test_a_status_is_written_only_over_the_one_that_was_read(control_plane: Cluster, namespace: str) -> None:
    submit(control_plane.api, namespace, "support")

    async def conversation(kube: ApiServer) -> Body:
        read = await kube.get(FINE_TUNE_JOB, namespace, "support")
        await kube.replace_status(read, {"phase": "Running", "currentStage": "only"})
        with pytest.raises(Conflict):
            await kube.replace_status(read, {"phase": "Failed"})
        return dict(await kube.get(FINE_TUNE_JOB, namespace, "support"))

    found = ask(control_plane, conversation)
    assert found["status"] == {"phase": "Running", "currentStage": "only"}
    managers = {entry["manager"]: entry.get("subresource") for entry in found["metadata"]["managedFields"]}
    assert managers["finetune-operator"] == "status"


def test_a_status_is_written_whole(control_plane: Cluster, namespace: str) -> None:
    submit(control_plane.api, namespace, "support")

    async def conversation(kube: ApiServer) -> Body:
        read = await kube.get(FINE_TUNE_JOB, namespace, "support")
        first = await kube.replace_status(read, {"phase": "Running", "currentStage": "only"})
        return dict(await kube.replace_status(first, {"phase": "Failed"}))

    assert ask(control_plane, conversation)["status"] == {"phase": "Failed"}


def test_the_same_event_twice_counts_one_up(control_plane: Cluster, namespace: str) -> None:
    job = submit(control_plane.api, namespace, "support")
    note = Note(Severity.WARNING, "Evicted", "attempt 1 was evicted " + "é" * 2000)

    async def conversation(kube: ApiServer) -> tuple[Body, ...]:
        for _ in range(3):
            await Recorder(kube, now=lambda: NOW, instance="test-0").write(job, [note])
        return tuple(dict(event) for event in await list_all(kube, SEEN_EVENT, namespace, fields="reason=Evicted"))

    (event,) = ask(control_plane, conversation)
    assert event["series"]["count"] == 3
    assert event["involvedObject"]["uid"] == job["metadata"]["uid"]
    assert event["type"] == "Warning"
    assert event["message"].endswith("é…")


def test_an_event_that_is_refused_fails_nothing(control_plane: Cluster, namespace: str, caplog: pytest.LogCaptureFixture) -> None:
    job = submit(control_plane.api, namespace, "support")
    job["metadata"]["namespace"] = "no-such-namespace"
    note = Note(Severity.NORMAL, "Started", "x")
    ask(control_plane, lambda kube: Recorder(kube, now=lambda: NOW, instance="test-0").write(job, [note]))
    assert "no-such-namespace" in caplog.text
