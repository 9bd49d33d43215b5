"""Both schemas as a real API server enforces them: the accepted and the refused manifests are the table that the models are tested with."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from finetune_api.kinds import FINE_TUNE_JOB, KINDS, RUNTIME, Kind
from tests.builders import Document, edited, job, stage, suite
from tests.cluster import Cluster, binaries
from tests.cluster.api import ApiError
from tests.manifests import BROKEN, BROKEN_RUNTIMES, CHANGES, VALID, VALID_RUNTIMES, Broken, Change
from tests.manifests.runtimes import WHOLE

GROUP = "/apis/finetune.dev/v1alpha1"
DRY = {"dryRun": "All", "fieldValidation": "Strict"}
ACCEPTED = [(FINE_TUNE_JOB, name, document) for name, document in VALID.items()]
ACCEPTED += [(RUNTIME, name, document) for name, document in VALID_RUNTIMES.items()]
REFUSED = [(FINE_TUNE_JOB, case) for case in BROKEN] + [(RUNTIME, case) for case in BROKEN_RUNTIMES]


def collection(kind: Kind, namespace: str) -> str:
    return f"{GROUP}/{kind.plural}" if kind is RUNTIME else f"{GROUP}/namespaces/{namespace}/{kind.plural}"


def named(document: Document, name: str) -> Document:
    return edited(document, {"metadata.name": name})


def kubectl(cluster: Cluster, *words: str, documents: list[Document] | None = None) -> subprocess.CompletedProcess[str]:
    text = "".join(f"---\n{json.dumps(document)}\n" for document in documents) if documents is not None else None
    command = [str(binaries.resolve("kubectl")), "--kubeconfig", str(cluster.kubeconfig), *words]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture(scope="module")
def shared(control_plane: Cluster) -> Iterator[str]:
    """One namespace for all that only asks."""
    from tests.cluster.namespaces import fresh_namespace

    with fresh_namespace(control_plane) as name:
        yield name


@pytest.mark.parametrize(("kind", "name", "document"), ACCEPTED, ids=[f"{kind.short_name}: {name}" for kind, name, _ in ACCEPTED])
def test_accepted(control_plane: Cluster, shared: str, kind: Kind, name: str, document: Document) -> None:
    stored = control_plane.api.post(collection(kind, shared), document, **DRY)
    assert stored.get("status") == ({"observedGeneration": -1} if kind.has_status else None)


@pytest.mark.parametrize(("kind", "case"), REFUSED, ids=[f"{kind.short_name}: {case.name}" for kind, case in REFUSED])
def test_refused_where_the_mistake_is(control_plane: Cluster, shared: str, kind: Kind, case: Broken) -> None:
    with pytest.raises(ApiError) as refused:
        control_plane.api.post(collection(kind, shared), case.document, **DRY)
    status = refused.value.status
    if case.pruned:
        assert (refused.value.code, status["reason"]) == (400, "BadRequest")
        assert f'unknown field "{case.at}"' in status["message"]
        return
    assert (refused.value.code, status["reason"]) == (422, "Invalid")
    fields = [cause["field"] for cause in status["details"]["causes"] if "some validation rules were not checked" not in cause["message"]]
    assert fields and all(near(field, case.at) for field in fields), status["message"]


def near(field: str, at: str) -> bool:
    """Whether the API server's path and ours are one, or one is within the other (it ends at a list, or at a list's owner)."""
    return field in ("<nil>", at) or at.startswith((f"{field}.", f"{field}[")) or field.startswith((f"{at}.", f"{at}["))


def test_kubectl_says_all_of_it(control_plane: Cluster, shared: str) -> None:
    """The whole table in one `kubectl apply`: a line for each manifest, which names the field, or the list or the part that it is in."""
    cases = [case for _, case in REFUSED if "metadata.name" not in case.edits]
    documents = [named(case.document, f"broken-{number}") for number, case in enumerate(cases)]
    said = kubectl(control_plane, "apply", "-n", shared, "--dry-run=server", "-f", "-", documents=documents)
    lines = re.split(r"\n(?=Error from server|The )", said.stderr.strip())
    assert (said.returncode, said.stdout, len(lines)) == (1, "", len(cases)), said.stderr
    found = [re.findall(r"\b(?:spec|metadata)\b[\w.\[\]]*", line) for line in lines]
    silent = [
        case.name
        for case, fields in zip(cases, found, strict=True)
        if not any((near(field, case.at) and field != "spec") or field == case.at for field in fields)
    ]
    assert silent == [], said.stderr


def test_kubectl_takes_what_is_right(control_plane: Cluster, shared: str) -> None:
    documents = [named(document, f"valid-{number}") for number, (_, _, document) in enumerate(ACCEPTED)]
    done = kubectl(control_plane, "apply", "-n", shared, "--dry-run=server", "-f", "-", documents=documents)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("created (server dry run)") == len(documents)


@pytest.fixture(scope="module")
def stored(control_plane: Cluster, shared: str) -> dict[str, Document]:
    """Each job that a change is tried on, by its text."""
    bases = {json.dumps(change.base, sort_keys=True): change.base for change in CHANGES}
    path = collection(FINE_TUNE_JOB, shared)
    return {text: control_plane.api.post(path, named(base, f"base-{number}")) for number, (text, base) in enumerate(bases.items())}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.name)
def test_a_job_is_fixed_but_for_its_budgets(control_plane: Cluster, shared: str, stored: dict[str, Document], change: Change) -> None:
    before = stored[json.dumps(change.base, sort_keys=True)]
    path = f"{collection(FINE_TUNE_JOB, shared)}/{before['metadata']['name']}"
    after = {**before, "spec": edited(change.base, change.edits)["spec"]}
    if change.refused_at is None:
        assert control_plane.api.put(path, after, **DRY)["metadata"]["name"] == before["metadata"]["name"]
        return
    with pytest.raises(ApiError) as refused:
        control_plane.api.put(path, after, **DRY)
    assert {cause["field"] for cause in refused.value.status["details"]["causes"]} == {change.refused_at}


def test_kubectl_names_the_field_of_a_forbidden_edit(control_plane: Cluster, shared: str) -> None:
    document = named(job(stage("only")), "edited")
    assert kubectl(control_plane, "apply", "-n", shared, "-f", "-", documents=[document]).returncode == 0
    refused = kubectl(control_plane, "apply", "-n", shared, "-f", "-", documents=[edited(document, {"spec.seed": 7})])
    assert refused.returncode == 1
    assert "spec.seed: Invalid value" in refused.stderr
    assert "a job is fixed from its creation: make a new job" in refused.stderr
    raised = edited(document, {"spec.retry": {"maxAttempts": 5, "maxPreemptions": 30}})
    assert (
        kubectl(control_plane, "apply", "-n", shared, "-f", "-", documents=[raised]).stdout
        == "finetunejob.finetune.dev/edited configured\n"
    )


def test_a_raw_post_prunes_what_kubectl_refuses(control_plane: Cluster, shared: str) -> None:
    document = edited(job(stage("only")), {"spec.command": ["sh"]})
    stored = control_plane.api.post(collection(FINE_TUNE_JOB, shared), document, dryRun="All")
    assert "command" not in stored["spec"]
    said = kubectl(control_plane, "apply", "-n", shared, "--dry-run=server", "-f", "-", documents=[document])
    assert 'unknown field "spec.command"' in said.stderr


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_definition_is_established_and_its_rules_affordable(control_plane: Cluster, kind: Kind) -> None:
    found = control_plane.api.get(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{kind.plural}.finetune.dev")
    conditions = {condition["type"]: condition["status"] for condition in found["status"]["conditions"]}
    assert conditions == {"NamesAccepted": "True", "Established": "True"}


def test_the_largest_job_is_within_the_cost_of_a_request(control_plane: Cluster, shared: str) -> None:
    uri = "pvc://models/" + "a" * 900
    stages = [stage(f"s{index}", handOver="merge", data={"train": [{"uri": uri}] * 64}) for index in range(15)]
    gates = [{"suite": "q31", "metric": "loss", "stage": "s14", "minImprovement": {"absolute": 0}} for _ in range(64)]
    largest = job(*stages, stage("last"), evaluation={"suites": [suite(f"q{index}") for index in range(32)], "gates": gates})
    assert control_plane.api.post(collection(FINE_TUNE_JOB, shared), largest, **DRY)["metadata"]["name"] == "example"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("ftj.spec.stages.training.learningRate",), "Peak learning rate. Default: the method's"),
        (("finetunejob.status.runtime",), "What the job runs in, as it was when the job started"),
        (("ftr.spec.storage",), "Where run folders lie"),
        (("clusterfinetuneruntime.spec.env.name",), "which the operator sets"),
    ],
)
def test_kubectl_explains(control_plane: Cluster, words: tuple[str, ...], says: str) -> None:
    said = kubectl(control_plane, "explain", *words)
    assert says in " ".join(said.stdout.split()), said


def test_status_is_the_operator_s_and_its_columns_show(control_plane: Cluster, shared: str) -> None:
    path = f"{collection(FINE_TUNE_JOB, shared)}/shown"
    document = {**named(job(), "shown"), "status": {"phase": "Succeeded"}}
    assert control_plane.api.post(collection(FINE_TUNE_JOB, shared), document)["status"] == {"observedGeneration": -1}
    runtime = {"name": "torch", "uid": "u", "generation": 3, "image": "a@sha256:1", "snapshot": json.dumps(WHOLE["spec"])}
    status: dict[str, Any] = {
        "observedGeneration": 1,
        "phase": "Running",
        "currentStage": "task",
        "progress": {"percent": 41, "loss": 0.81, "eta": "1h0m"},
        "summary": {
            "stage": "task",
            "queue": "team",
            "methods": "lora+lora",
            "node": "gpu-1",
            "attempts": "1/3",
            "score": "loss 5.34 → 3.31",
        },
        "runtime": runtime,
    }
    assert control_plane.api.patch(f"{path}/status", {"status": status})["status"] == status
    header, row = kubectl(control_plane, "get", "ftj", "shown", "-n", shared, "-o", "wide").stdout.splitlines()
    assert header.split() == ["NAME", *(column.name.upper() for column in FINE_TUNE_JOB.columns)]
    assert row.split()[:7] == ["shown", "Running", "task", "41", "0.81", "1h0m", "team"]
    assert row.split()[8:] == ["hf://owner/model", "lora+lora", "gpu-1", "1/3", "loss", "5.34", "→", "3.31"]
    assert kubectl(control_plane, "get", "ftj", "shown", "-n", shared).stdout.split()[:8] == header.split()[:8]


def test_a_runtime_s_columns_show_which_is_the_default(control_plane: Cluster, shared: str) -> None:
    control_plane.api.post(collection(RUNTIME, shared), named(WHOLE, "shown"))
    try:
        header, row = kubectl(control_plane, "get", "ftr", "shown", "-o", "wide").stdout.splitlines()
        assert header.split() == ["NAME", *(column.name.upper() for column in RUNTIME.columns)]
        assert row.split()[:4] == ["shown", "2", "true", "team-queue"]
        both = kubectl(control_plane, "get", "finetune", "-n", shared, "-o", "name").stdout
        assert "clusterfinetuneruntime.finetune.dev/shown" in both
    finally:
        control_plane.api.delete(f"{collection(RUNTIME, shared)}/shown")
