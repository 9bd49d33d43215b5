"""From `kubectl apply` to Succeeded: real pods train both stages, and the resource tells everything; the weights are those of `finetune run`."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune_api.constants import PROGRESS_AUDIENCE
from finetune_client import AsyncClient, Client
from tests.cluster.api import Object
from tests.node import reference
from tests.node.commands import Person
from tests.node.jobs import EVERY, Job, manifest
from tests.node.platform import PATIENCE, TEAM, Platform


@pytest.fixture(scope="module")
def client(person: Person) -> Iterator[Client]:
    """The Python client, as in a notebook."""
    with Client(kubeconfig=person.kubeconfig, namespace=TEAM) as client:
        yield client


@pytest.fixture(scope="module")
def phases(installed: Platform, client: Client, expected: reference.Expected) -> list[str]:
    """Those of a job that nobody disturbed, as the client streamed them from its creation to its end; `finetune run` works beside it."""
    installed.await_order()
    created = client.create(manifest("undisturbed"))
    found = [job.phase for job in client.stream(created.name)]
    return [phase for index, phase in enumerate(found) if index == 0 or phase != found[index - 1]]


@pytest.fixture(scope="module")
def succeeded(installed: Platform, client: Client, phases: list[str]) -> Job:
    """That job, at its end."""
    assert client.wait("undisturbed", timeout=PATIENCE).succeeded, client.get("undisturbed").status.failure
    return Job(installed, "undisturbed")


def test_the_client_streams_what_becomes_of_it(phases: list[str]) -> None:
    assert phases[-1] == "Succeeded"
    assert [phase for phase in phases if phase in ("Preparing", "Running", "Succeeded")] == ["Preparing", "Running", "Succeeded"]


def test_the_client_fetches_the_report(succeeded: Job, client: Client, tmp_path: Path) -> None:
    client.fetch("undisturbed", "report", tmp_path / "report", timeout=PATIENCE)
    fetched = {path.name: path.read_bytes() for path in (tmp_path / "report").iterdir()}
    assert fetched == {name: (succeeded.run_folder / "artifacts" / name).read_bytes() for name in ("report.html", "README.md")}


def test_the_weights_are_those_of_finetune_run_in_the_same_image(succeeded: Job, expected: reference.Expected) -> None:
    assert succeeded.weights() == expected.weights()


def test_each_segment_took_one_pod(succeeded: Job) -> None:
    attempts = [(each["segment"], each["number"], each["reason"], each["exitCode"]) for each in succeeded.status()["attempts"]]
    assert attempts == [
        ("prepare", 1, "Succeeded", 0),
        ("domain, task", 1, "Succeeded", 0),
        ("report", 1, "Succeeded", 0),
    ]
    assert all(each["node"].startswith("node-") and each["finishedAt"] >= each["startedAt"] for each in succeeded.status()["attempts"])
    assert "budgets" not in succeeded.status()


def test_conditions_are_those_of_an_end(succeeded: Job) -> None:
    found = {each["type"]: each["status"] for each in succeeded.status()["conditions"]}
    assert found == {
        "Accepted": "True",
        "Running": "False",
        "Suspended": "False",
        "Complete": "True",
        "Failed": "False",
        "Finished": "True",
        "Stalled": "False",
        "Reconciling": "False",
    }


def test_what_was_measured_is_told_by_the_report_job(succeeded: Job, expected: reference.Expected) -> None:
    """The trainer's message could not hold it: the whole of it equals what `finetune run` measured."""
    status = succeeded.status()
    assert status["evaluation"] == expected.result["evaluation"]
    assert {(each["suite"], each.get("gate")) for each in status["evaluation"]} >= {("in-domain", "Passed"), ("knowledge", None)}
    assert [(stage["name"], stage["phase"], stage["attempts"]) for stage in status["stages"]] == [
        ("domain", "Succeeded", 1),
        ("task", "Succeeded", 1),
    ]
    provenance = status["provenance"]
    assert f"@{provenance['imageDigest']}" in succeeded.platform.images.trainer.reference
    assert provenance["configHash"] == expected.result["provenance"]["configHash"]
    assert provenance["datasetHashes"] == expected.result["provenance"]["datasetHashes"]
    assert status["usage"]["gpuSeconds"] > 0


def test_the_run_folder_is_cleaned_and_holds_what_the_status_names(succeeded: Job) -> None:
    folder = succeeded.run_folder
    assert {path.name for path in folder.iterdir()} == {"artifacts", "logs", "result.json", "run.json"}
    for artifact in succeeded.status()["artifacts"]:
        claim, _, path = artifact["uri"].removeprefix("pvc://").partition("/")
        assert (succeeded.platform.volume(claim) / path).exists(), artifact
    assert (folder / "artifacts/merged/model.safetensors").stat().st_uid == 65532


def test_kubectl_get_is_a_table_for_people(succeeded: Job) -> None:
    header, row = succeeded.platform.cluster.kubectl("get", "ftj", "undisturbed", "--namespace", TEAM).splitlines()
    assert re.split(r"\s{2,}", header) == ["NAME", "PHASE", "STAGE", "PROGRESS", "LOSS", "ETA", "QUEUE", "AGE"]
    assert row.split()[:2] == ["undisturbed", "Succeeded"]
    wide = succeeded.platform.cluster.kubectl("get", "ftj", "undisturbed", "--namespace", TEAM, "--output", "wide")
    assert "lora+lora" in wide and "node-" in wide


def test_pods_were_restricted_and_without_a_token_for_the_api_server(succeeded: Job) -> None:
    assert "restricted" in succeeded.platform.cluster.kubectl("get", "namespace", TEAM, "--output", "yaml")
    for pod in succeeded.pods():
        assert pod["spec"]["automountServiceAccountToken"] is False
        sources = [source for volume in pod["spec"]["volumes"] for source in volume.get("projected", {}).get("sources", ())]
        assert [each["serviceAccountToken"]["audience"] for each in sources if "serviceAccountToken" in each] in ([], [PROGRESS_AUDIENCE])


def test_on_a_volume_of_one_node_every_pod_goes_where_the_first_one_bound_it(succeeded: Job, person: Person, tmp_path: Path) -> None:
    """ReadWriteOnce, WaitForFirstConsumer: the pod that prepares decides upon the node."""
    platform = succeeded.platform
    job = Job(platform, "one-node")
    lines, model = asyncio.run(by_coroutines(person, manifest(job.name, steps=EVERY, runtimeRef={"name": "local"}), tmp_path))
    status = job.status()
    api, name = platform.cluster.api, f"ft-one-node-{job.uid[:8]}"
    claim = api.get(f"/api/v1/namespaces/{TEAM}/persistentvolumeclaims/{name}")
    assert (claim["spec"]["accessModes"], claim["spec"]["storageClassName"]) == (["ReadWriteOnce"], "local")
    assert api.get("/apis/storage.k8s.io/v1/storageclasses/local")["volumeBindingMode"] == "WaitForFirstConsumer"
    volume = api.get(f"/api/v1/persistentvolumes/{claim['spec']['volumeName']}")
    (term,) = volume["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"]
    (host,) = term["matchExpressions"][0]["values"]
    assert [(each["segment"], each["node"]) for each in status["attempts"]] == [
        ("prepare", host),
        ("domain, task", host),
        ("report", host),
    ]
    assert job.weights()
    assert [line for line in lines if "loss=" in line], "the client follows the pods' logs"
    assert model.read_bytes() == (job.run_folder / "artifacts" / model.relative_to(tmp_path)).read_bytes()


async def by_coroutines(person: Person, document: Object, folder: Path) -> tuple[list[str], Path]:
    """Create a job, follow its pods' logs while it is waited for, and bring its merged model. Returns the lines, and the weights' file."""
    async with AsyncClient(kubeconfig=person.kubeconfig, namespace=TEAM) as client:
        name = (await client.create(document)).name

        async def followed() -> list[str]:
            return [line.text async for line in client.logs(name, follow=True)]

        lines = asyncio.create_task(followed())
        await client.wait(name, "Complete", timeout=2 * PATIENCE)
        await client.fetch(name, "merged", folder / "merged", timeout=PATIENCE)
        return await lines, folder / "merged/model.safetensors"


def test_the_model_outlives_the_job(succeeded: Job, client: Client) -> None:
    """The last of this module: output.retain is Always, so the claim stays when the job is deleted."""
    model: Path = succeeded.run_folder / "artifacts/merged/model.safetensors"
    uid = succeeded.uid
    client.delete("undisturbed")
    succeeded.await_gone(uid)
    assert model.exists()
