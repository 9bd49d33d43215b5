"""What somebody who may only create FineTuneJobs could try, as data: a job made another way, or a request that is not theirs to send.

A request that is answered well has escalated. A job may be accepted: then nothing that the operator makes of it may show what it tried,
which `tests/apiserver/invariants.py` judges for every object at once.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from finetune_api import constants as c
from tests.apiserver.installation import JOBS
from tests.builders import Document, edited, job, stage

HOME: Final = "team-a"
ELSEWHERE: Final = "team-b"
EVIL_IMAGE: Final = "evil.example.com/miner@sha256:" + "e" * 64
RUNTIMES: Final = f"/apis/{c.API_VERSION}/clusterfinetuneruntimes"
CORE: Final = f"/api/v1/namespaces/{HOME}"
VICTIM: Final = "victim"
ROWS: Final = "hf://datasets/owner/name/train.jsonl"


@dataclass(frozen=True)
class Request:
    """Sent as the user; whatever is not refused has escalated. `{uid}` and `{child}` are the victim's."""

    method: str
    path: str
    body: Mapping[str, Any] | None = None
    query: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """A FineTuneJob that is created. `refused` where the API server itself has to say no; else the operator's objects are judged."""

    manifest: Document
    refused: bool
    namespace: str = HOME
    lenient: bool = False
    """Sent without field validation, as curl does it: unknown fields are dropped without an error."""


def plain(name: str = "attempt", **edits: Any) -> Document:
    """A job that a cluster takes, with other values at some paths (`spec__seed=1` is spec.seed)."""
    manifest = job(stage("only", data={"train": [{"uri": ROWS}]}))
    manifest["metadata"] = {"name": name}
    return edited(manifest, {path.replace("__", "."): value for path, value in edits.items()})


def _unknown(path: str, value: Any) -> dict[str, Job]:
    manifest = edited(plain(), {path: value})
    return {f"{path}, strictly": Job(manifest, refused=True), f"{path}, leniently": Job(manifest, refused=False, lenient=True)}


def _metadata(**metadata: Any) -> Job:
    return Job(edited(plain(), {f"metadata.{key}": value for key, value in metadata.items()}), refused=False)


def _references(secrets: list[str] | None = None, claims: list[str] | None = None) -> Document:
    named = {
        "secrets": [{"name": f"s{index}", "secretName": name} for index, name in enumerate(secrets or [])],
        "claims": [{"name": f"c{index}", "claimName": name} for index, name in enumerate(claims or [])],
    }
    return edited(plain(), {"spec.references": {kind: entries for kind, entries in named.items() if entries}})


def _at(path: str, uri: str, **more: Any) -> Job:
    base = edited(plain(), {"spec.references": {"claims": [{"name": "data", "claimName": "jane-data"}]}})
    return Job(edited(base, {path: uri, **more}), refused=True)


POD: Final[Document] = {
    "metadata": {"name": "escaped"},
    "spec": {"containers": [{"name": "x", "image": EVIL_IMAGE}], "serviceAccountName": "admin"},
}
OWNER: Final[Document] = {"apiVersion": c.API_VERSION, "kind": c.KIND, "name": VICTIM, "uid": "{uid}", "controller": True}

ATTEMPTS: Final[Mapping[str, Mapping[str, Job | Request]]] = {
    "service account": {
        **_unknown("spec.serviceAccountName", "admin"),
        **_unknown("spec.template", {"spec": {"serviceAccountName": "admin"}}),
        **_unknown("spec.automountServiceAccountToken", True),
        "a token of the operator": Request(
            "POST", "/api/v1/namespaces/finetune-system/serviceaccounts/finetune-operator/token", {"spec": {}}
        ),
        "a token of the namespace's admin": Request("POST", f"{CORE}/serviceaccounts/admin/token", {"spec": {}}),
        "a role for oneself": Request(
            "POST",
            f"/apis/rbac.authorization.k8s.io/v1/namespaces/{HOME}/rolebindings",
            {
                "metadata": {"name": "more"},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "admin"},
                "subjects": [{"kind": "ServiceAccount", "name": "jane", "namespace": HOME}],
            },
        ),
    },
    "Secret": {
        "a Secret that one may not get": Job(_references(secrets=["prod-db"]), refused=True),
        "the eighth of eight": Job(_references(secrets=["jane-token"] * 7 + ["prod-db"]), refused=True),
        "one that is not there yet": Job(_references(secrets=["later"]), refused=True),
        "one that the runtime gives, named anew": Job(_references(secrets=["platform-hub"]), refused=True),
        "by a path": Job(_references(secrets=["jane-token/../prod-db"]), refused=True),
        "of another namespace, by a slash": Job(_references(secrets=[f"{ELSEWHERE}/their-token"]), refused=True),
        "more than eight": Job(_references(secrets=["jane-token"] * 9), refused=True),
        "credentials that name no reference": Job(
            edited(plain(), {"spec.model": {"uri": "hf://owner/model", "credentials": "prod-db"}}), refused=False
        ),
        **_unknown("spec.env", [{"name": "T", "valueFrom": {"secretKeyRef": {"name": "prod-db", "key": "token"}}}]),
        **_unknown("spec.imagePullSecrets", [{"name": "prod-db"}]),
        "changed into the references afterwards": Request(
            "PATCH", JOBS.format(HOME) + "/mine", {"spec": {"references": {"secrets": [{"name": "x", "secretName": "prod-db"}]}}}
        ),
        "read directly": Request("GET", f"{CORE}/secrets/prod-db"),
        "listed": Request("GET", f"{CORE}/secrets"),
    },
    "claim": {
        "a claim that one may not get": Job(_references(claims=["finance-data"]), refused=True),
        "the eighth of eight": Job(_references(claims=["jane-data"] * 7 + ["finance-data"]), refused=True),
        "the runtime's read-only claim, named anew to write to it": Job(_references(claims=["shared-models"]), refused=True),
        "the claim of another job": Job(_references(claims=["{claim}"]), refused=True),
        "an output on a claim that nobody named": Job(
            edited(plain(), {"spec.output": {"uri": "pvc://finance-data/x", "retain": "Always"}}), refused=False
        ),
        "a model on a claim that nobody named": Job(edited(plain(), {"spec.model.uri": "pvc://finance-data/model"}), refused=False),
        "an output on the runtime's read-only claim": Job(
            edited(plain(), {"spec.output": {"uri": "pvc://shared/x", "retain": "Always"}}), refused=False
        ),
        **_unknown("spec.volumes", [{"name": "x", "persistentVolumeClaim": {"claimName": "finance-data"}}]),
        **_unknown("spec.storage", {"claimName": "finance-data"}),
        "a claim of one's own": Request("POST", f"{CORE}/persistentvolumeclaims", {"metadata": {"name": "x"}, "spec": {}}),
    },
    "image": {
        **_unknown("spec.image", EVIL_IMAGE),
        **_unknown("spec.command", ["sh", "-c", "id"]),
        **_unknown("spec.runtimeRef.image", EVIL_IMAGE),
        **_unknown("spec.podTemplate", POD),
        "a runtime of one's own": Request(
            "POST",
            RUNTIMES,
            {
                "apiVersion": c.API_VERSION,
                "kind": "ClusterFineTuneRuntime",
                "metadata": {"name": "mine"},
                "spec": {"image": EVIL_IMAGE, "storage": {"claimName": "finance-data"}},
            },
        ),
        "another image in the runtime": Request("PATCH", f"{RUNTIMES}/platform", {"spec": {"image": EVIL_IMAGE}}),
        "another default runtime": Request(
            "PATCH", f"{RUNTIMES}/unused", {"metadata": {"annotations": {"finetune.dev/default-runtime": "true"}}}
        ),
        "a snapshot of a runtime as an annotation": _metadata(
            annotations={
                "finetune.dev/runtime-snapshot": json.dumps({"name": "x", "uid": "x", "generation": 1, "spec": {"image": EVIL_IMAGE}}),
                "finetune.dev/trainer-config": "{}",
                "finetune.dev/default-runtime": "true",
            }
        ),
        "a snapshot of a runtime as a status": Request(
            "PATCH", JOBS.format(HOME) + "/mine/status", {"status": {"runtime": {"name": "x", "snapshot": {"image": EVIL_IMAGE}}}}
        ),
        "a status in the creation": Job(
            {**plain(), "status": {"phase": "Succeeded", "runtime": {"name": "x", "image": EVIL_IMAGE, "snapshot": "{}"}}}, refused=False
        ),
        "a runtime by a path": Job(edited(plain(), {"spec.runtimeRef": {"name": "../x"}}), refused=True),
        "a pod directly": Request("POST", f"{CORE}/pods", POD),
        "a Job directly": Request("POST", f"/apis/batch/v1/namespaces/{HOME}/jobs", {"metadata": {"name": "x"}, "spec": {"template": POD}}),
        "another image in the pod of another job": Request(
            "PATCH", f"{CORE}/pods/{{pod}}", {"spec": {"containers": [{"name": "trainer", "image": EVIL_IMAGE}]}}
        ),
    },
    "another namespace": {
        "a job there": Job(plain(), refused=True, namespace=ELSEWHERE),
        "a job here that says there": Job(edited(plain(), {"metadata.namespace": ELSEWHERE}), refused=True),
        "the jobs there": Request("GET", JOBS.format(ELSEWHERE)),
        "all jobs": Request("GET", f"/apis/{c.API_VERSION}/{c.PLURAL}"),
        "a job there deleted": Request("DELETE", JOBS.format(ELSEWHERE) + "/theirs"),
        "a namespace of one's own": Request("POST", "/api/v1/namespaces", {"metadata": {"name": "x"}}),
        **_unknown("spec.targetNamespace", ELSEWHERE),
    },
    "label": {
        "the labels of the operator's children": _metadata(
            labels={
                "finetune.dev/managed": "true",
                "finetune.dev/job-uid": "{uid}",
                "finetune.dev/job": VICTIM,
                "finetune.dev/segment": "0",
            }
        ),
        "the labels of Jobs and of a Service": _metadata(
            labels={"app": "payments", "job-name": VICTIM, "batch.kubernetes.io/job-name": VICTIM}
        ),
        "a queue of one's own choice": _metadata(labels={"kueue.x-k8s.io/queue-name": "vip", "kueue.x-k8s.io/priority-class": "vip"}),
        "the label of the chart": _metadata(
            labels={"app.kubernetes.io/component": "operator", "app.kubernetes.io/instance": "finetune-operator"}
        ),
        **_unknown("spec.podLabels", {"app": "payments"}),
        **_unknown("spec.podAnnotations", {"sidecar.istio.io/inject": "false"}),
        **_unknown("spec.priorityClassName", "system-node-critical"),
        **_unknown("spec.nodeSelector", {"node-role.kubernetes.io/control-plane": ""}),
    },
    "owner reference": {
        "the victim as controller": _metadata(ownerReferences=[OWNER]),
        "the victim's Job as controller": _metadata(
            ownerReferences=[{"apiVersion": "batch/v1", "kind": "Job", "name": "{child}", "uid": "{child_uid}", "controller": True}]
        ),
        "a namespace as owner": _metadata(
            ownerReferences=[{"apiVersion": "v1", "kind": "Namespace", "name": "kube-system", "uid": "{system_uid}", "controller": True}]
        ),
        "an owner whose deletion it would block": Job(
            edited(plain(), {"metadata.ownerReferences": [{**OWNER, "blockOwnerDeletion": True}]}), refused=True
        ),
        "a uid of one's own": _metadata(uid="{uid}"),
        "a finalizer through its subresource": Request("PUT", JOBS.format(HOME) + "/mine/finalizers", plain("mine")),
    },
    "a path with ..": {
        "in the model": _at("spec.model.uri", "pvc://data/../other"),
        "at the end of the model": _at("spec.model.uri", "pvc://data/models/.."),
        "after the claim's name": _at("spec.model.uri", "pvc://data/a/b/../../../../run/team-b"),
        "instead of a claim's name": _at("spec.model.uri", "pvc://../run"),
        "in the rows": _at("spec.stages[0].data.train[0].uri", "pvc://data/../*.jsonl"),
        "in the validation rows": _at("spec.stages[0].data.validation", {"uri": "pvc://data/x/../../dev.jsonl"}),  # type: ignore[arg-type]
        "in the output": _at("spec.output.uri", "pvc://data/../models"),
        "in a repository": _at("spec.model.uri", "hf://../model"),
        "in a repository's file": _at("spec.stages[0].data.train[0].uri", "hf://datasets/owner/name/../../x"),
        "as the job's name": Job(plain(".."), refused=True),
        "in the job's name": Job(plain("a/../b"), refused=True),
        "in percent signs, which nobody decodes": Job(
            edited(_references(claims=["jane-data"]), {"spec.model.uri": "pvc://c0/%2e%2e/other"}), refused=False
        ),
        "a file of the pod": Job(edited(plain(), {"spec.model.uri": "file:///finetune/run"}), refused=False),
        "a file of the pod as output": Job(
            edited(plain(), {"spec.output": {"uri": "file:///finetune/run", "retain": "Always"}}), refused=False
        ),
    },
    "a colliding name": {
        "of the victim's Job": Job(plain("{child}"), refused=False),
        "of the victim's claim": Job(plain("{claim}"), refused=False),
        "of the victim": Job(plain(VICTIM), refused=True),
        "with the first 30 letters of another": Job(plain("x" * 62 + "a"), refused=False),
        "with the same first 30 letters": Job(plain("x" * 62 + "b"), refused=False),
        "that ends in a hyphen where it is cut": Job(plain("a" * 29 + "-b"), refused=False),
        "with a dot": Job(plain("a.b"), refused=True),
        "that looks like an option": Job(plain("--kubeconfig"), refused=True),
    },
    "status and events": {
        "a success of one's own": Request("PATCH", JOBS.format(HOME) + "/mine/status", {"status": {"phase": "Succeeded"}}),
        "the whole status": Request("PUT", JOBS.format(HOME) + "/mine/status", {**plain("mine"), "status": {"phase": "Succeeded"}}),
        "an event on a job": Request("POST", f"{CORE}/events", {"metadata": {"name": "x"}, "involvedObject": {}}),
        "what somebody else may": Request(
            "POST",
            "/apis/authorization.k8s.io/v1/subjectaccessreviews",
            {"spec": {"user": "admin", "resourceAttributes": {"verb": "get", "resource": "secrets"}}},
        ),
    },
}

SECRETS: Final = {
    HOME: ("jane-token", "prod-db", "platform-hub"),
    ELSEWHERE: ("their-token",),
}
CLAIMS: Final = {HOME: ("jane-data", "finance-data", "shared-models")}
HIDDEN: Final = base64.b64encode(b"not for jane").decode()
