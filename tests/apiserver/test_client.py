"""finetune_client on a real API server, with an operator that does what jobs ask, and a network that breaks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing
from functools import partial
from pathlib import Path

import pytest

from finetune_client import (
    AlreadyExists,
    AsyncClient,
    Client,
    Conflict,
    Forbidden,
    Invalid,
    JobEnded,
    NotFound,
    WaitTimeout,
    access,
)
from finetune_client.transport import Transport
from finetune_client.watch import watch
from finetune_operator.kinds import FINE_TUNE_JOB
from tests.apiserver.proxy import Proxy
from tests.apiserver.trouble import Scene
from tests.builders import Document, edited
from tests.cluster import Cluster
from tests.cluster.pods import await_value

PATIENCE = 120.0


def client_of(stage: Scene, kubeconfig: Path | None = None) -> Client:
    return Client(kubeconfig=kubeconfig or stage.cluster.kubeconfig, namespace=stage.namespace)


def manifest(stage: Scene, name: str, **edits: object) -> Document:
    return stage.trial(name, **edits).manifest


def test_applying_twice_changes_nothing_and_what_get_prints_can_be_applied(stage: Scene) -> None:
    wanted = manifest(stage, "applied")
    with client_of(stage) as client:
        assert client.apply(wanted, dry_run=True).what == "created"
        with pytest.raises(NotFound):
            client.get("applied")
        assert [client.apply(wanted).what for _ in range(2)] == ["created", "unchanged"]
        job = client.get("applied")
        assert client.apply(job.manifest).what == "unchanged"
        assert client.apply(edited(wanted, {"spec.suspend": True})).what == "configured"
        assert (job.spec.stages[0].name, job.namespace) == ("task", stage.namespace)
        with pytest.raises(AlreadyExists, match="applied"):
            client.create(wanted)
        assert client.create(edited(wanted, {"metadata.name": "created"})).name == "created"
        assert {"applied", "created"} <= {job.name for job in client.list()}


def test_what_the_cluster_refuses_names_the_field(stage: Scene) -> None:
    wanted = manifest(stage, "refused")
    with client_of(stage) as client:
        with pytest.raises(Invalid) as caught:
            client.apply(edited(wanted, {"spec.seed": -1}))
        assert [cause.field for cause in caught.value.causes] == ["spec.seed"]
        with pytest.raises(Invalid, match="sed"):
            client.create(edited(wanted, {"spec.sed": 1}))
        client.apply(wanted)
        with pytest.raises(Invalid, match="seed"):
            client.apply(edited(wanted, {"spec.seed": 7}))


def test_fields_of_another_manager_are_taken_over_only_by_force(stage: Scene) -> None:
    wanted = edited(manifest(stage, "shared"), {"spec.suspend": True})
    stage.api.patch(FINE_TUNE_JOB.path(stage.namespace, "shared"), wanted, how="apply", fieldManager="argocd")
    other = edited(wanted, {"spec.suspend": False})
    with client_of(stage) as client:
        with pytest.raises(Conflict, match="argocd"):
            client.apply(other)
        assert client.apply(other, force=True).what == "configured"


def test_a_name_that_is_not_there_says_which_was_meant(stage: Scene) -> None:
    with client_of(stage) as client:
        client.apply(manifest(stage, "support-intents"))
        for ask in (client.get, client.suspend, client.delete, client.wait, lambda name: list(client.logs(name))):
            with pytest.raises(NotFound) as caught:
                ask("suport-intents")
            assert (caught.value.hint, "suport-intents" in caught.value.message) == ("Did you mean support-intents?", True)


def test_a_stranger_is_told_what_he_may_not(stage: Scene, control_plane: Cluster) -> None:
    with client_of(stage, control_plane.user("stranger")) as client, pytest.raises(Forbidden, match='"stranger" cannot list'):
        client.list()


def test_a_job_is_waited_for_streamed_and_its_events_told(stage: Scene) -> None:
    trial = stage.trial("waited")
    phases: list[str] = []
    with client_of(stage) as client:
        client.apply(trial.manifest)
        waiting = threading.Thread(target=lambda: phases.extend(job.phase for job in client.stream("waited")))
        waiting.start()
        with pytest.raises(WaitTimeout, match="waited is not Finished after"):
            client.wait("waited", timeout=0.5)
        trial.succeed(trial.run())
        done = client.wait("waited", timeout=PATIENCE)
        waiting.join(PATIENCE)
        assert (done.phase, done.succeeded, phases[-1]) == ("Succeeded", True, "Succeeded")
        assert client.wait("waited", "Complete") == done
        with pytest.raises(JobEnded, match="will not be Failed: it has ended, Succeeded"):
            client.wait("waited", "Failed")
        await_value(lambda: "Succeeded" in {event.reason for event in client.events(done)}, what="the event of its end")


def test_cancel_saves_and_keeps_the_record_and_resume_goes_on(stage: Scene) -> None:
    trial = stage.trial("cancelled")
    pod = trial.start()
    with client_of(stage) as client:
        stopping = threading.Thread(target=lambda: trial.stop(trial.await_stopping(pod)))
        stopping.start()
        job = client.cancel("cancelled", timeout=PATIENCE)
        stopping.join(PATIENCE)
        assert (job.phase, job.holds("Suspended"), job.finished) == ("Suspended", True, False)
        client.resume("cancelled")
        trial.succeed(trial.run(2))
        assert client.cancel("cancelled").succeeded, "what has ended is left as it is"
        client.delete("cancelled")
        trial.await_gone()


def test_a_wait_survives_a_network_that_breaks(stage: Scene, control_plane: Cluster, tmp_path: Path) -> None:
    trial = stage.trial("unbroken")
    trial.submit()
    lost: list[str] = []

    async def conversation(proxy: Proxy) -> str:
        async with AsyncClient(kubeconfig=proxy.kubeconfig, namespace=stage.namespace) as client:
            task = asyncio.create_task(client.wait("unbroken", timeout=PATIENCE, trouble=lambda error: lost.append(str(error))))
            await asyncio.to_thread(await_value, lambda: any("watch=true" in each.path for each in proxy.requests), what="a watch")
            proxy.down = True
            await asyncio.to_thread(trial.run)  # the pieces of this break the watch
            await asyncio.to_thread(await_value, lambda: lost, what="a broken watch")
            await asyncio.to_thread(lambda: trial.succeed(trial.await_pod()))
            proxy.down = False
            return (await task).phase

    with Proxy(control_plane, tmp_path) as proxy:
        assert asyncio.run(conversation(proxy)) == "Succeeded"
    assert "no connection to http://127.0.0.1" in lost[0]
    assert lost[-1] == "None", "it is back"


class Forgetful(Transport):
    """Its first watch asks for a version that the API server has forgotten long ago: 410 Gone."""

    forgot = False

    def stream(
        self, path: str, *, what: str, query: Mapping[str, str], silence: float | None = 90.0
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        asked = query if self.forgot else {**query, "resourceVersion": "1"}
        self.forgot = True
        return super().stream(path, what=what, query=asked, silence=silence)


def test_a_watch_whose_version_is_gone_lists_anew_and_tells_nothing_twice(stage: Scene) -> None:
    stage.api.post(FINE_TUNE_JOB.path(stage.namespace), manifest(stage, "old", spec__suspend=True))
    stage.trial("old").await_phase("Suspended")

    async def conversation() -> list[tuple[str, str]]:
        transport = Forgetful(partial(access.load, stage.cluster.kubeconfig), user_agent="test")
        told: list[tuple[str, str]] = []
        query = {"fieldSelector": "metadata.name=old"}

        async def slept(_: float) -> None:
            """Between the 410 and the new list."""
            path = FINE_TUNE_JOB.path(stage.namespace, "old")
            await asyncio.to_thread(stage.api.delete, path)
            await asyncio.to_thread(await_value, lambda: stage.api.find(path) is None, what="old is gone")

        changes = watch(transport, FINE_TUNE_JOB.path(stage.namespace), what="FineTuneJobs", query=query, sleep=slept)
        async with aclosing(changes):
            async for change in changes:
                if change is not None:
                    told.append((change.kind, change.manifest["metadata"]["name"]))
                    if change.kind == "deleted":
                        break
        await transport.close()
        return told

    assert asyncio.run(conversation()) == [("added", "old"), ("deleted", "old")]
