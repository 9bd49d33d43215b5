"""What must hold of every object that the operator makes, whatever its FineTuneJob says: judged on the objects as the API server has them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from finetune_api import constants as c

Document = Mapping[str, Any]
OWN_LABELS: Final = {c.MANAGED_LABEL, c.JOB_UID_LABEL, c.JOB_LABEL, c.SEGMENT_LABEL, c.ATTEMPT_LABEL, c.READ_LABEL}
KUBERNETES_LABELS: Final = {"batch.kubernetes.io/job-name", "batch.kubernetes.io/controller-uid", "job-name", "controller-uid"}
OWN_ENVIRONMENT: Final = {"FINETUNE_TERMINATION_LOG", "HOME", "OMP_NUM_THREADS", "DISABLE_KUBEFLOW_INTEGRATION", c.PROGRESS_URL}
OWN_ANNOTATIONS: Final = {c.TRAINER_CONFIG_ANNOTATION, c.PROGRESS_CA_ANNOTATION}
POD_FIELDS: Final = {
    "restartPolicy",
    "automountServiceAccountToken",
    "enableServiceLinks",
    "terminationGracePeriodSeconds",
    "securityContext",
    "containers",
    "initContainers",
    "volumes",
    # Defaults of the API server.
    "dnsPolicy",
    "schedulerName",
}
CONTAINER_FIELDS: Final = {
    "name",
    "image",
    "imagePullPolicy",
    "args",
    "env",
    "resources",
    "securityContext",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "volumeMounts",
}


@dataclass(frozen=True)
class Granted:
    """What jobs of one author may use: the runtime, and the Secrets and claims that the author or the runtime may."""

    runtime: Document
    """A ClusterFineTuneRuntime without placement: a pod must not say where it goes."""
    secrets: frozenset[str]
    claims: frozenset[str]
    read_only: frozenset[str]


def violations(child: Document, job: Document, granted: Granted) -> Iterator[str]:
    """Yield what a batch Job has that its FineTuneJob could not give it."""
    yield from _belongs(child, job)
    template = child["spec"]["template"]
    spec = granted.runtime["spec"]
    labels = set(template["metadata"]["labels"]) - KUBERNETES_LABELS
    yield from _more("labels of the pod", labels, OWN_LABELS | set(spec.get("podLabels", {})))
    yield from _more("labels of the Job", set(child["metadata"]["labels"]) - KUBERNETES_LABELS, OWN_LABELS)
    yield from _more(
        "annotations of the pod", set(template["metadata"]["annotations"]), OWN_ANNOTATIONS | set(spec.get("podAnnotations", {}))
    )
    snapshot = json.loads(child["metadata"]["annotations"][c.RUNTIME_SNAPSHOT_ANNOTATION])
    if (snapshot["uid"], snapshot["spec"]["image"]) != (granted.runtime["metadata"]["uid"], spec["image"]):
        yield f"the runtime's snapshot is of {snapshot['name']} with {snapshot['spec']['image']}"
    yield from _pod(template["spec"], job, granted)


def _belongs(child: Document, job: Document) -> Iterator[str]:
    metadata, owner = child["metadata"], job["metadata"]
    if metadata["namespace"] != owner["namespace"]:
        yield f"it is in the namespace {metadata['namespace']}"
    if [(each["uid"], each.get("controller")) for each in metadata.get("ownerReferences", ())] != [(owner["uid"], True)]:
        yield f"its owners are {metadata.get('ownerReferences')}"
    if metadata["labels"][c.JOB_UID_LABEL] != owner["uid"]:
        yield f"its label says {metadata['labels'][c.JOB_UID_LABEL]}"
    if not metadata["name"].startswith(f"ft-{owner['name'][:30]}-{owner['uid'][:8]}-"):
        yield f"its name is {metadata['name']}"


def _pod(pod: Document, job: Document, granted: Granted) -> Iterator[str]:
    yield from _more("fields of the pod", set(pod), POD_FIELDS)
    if pod["automountServiceAccountToken"] is not False:
        yield "the pod mounts a token"
    if not pod["securityContext"]["runAsNonRoot"]:
        yield "the pod may run as root"
    for container in [*pod["containers"], *pod.get("initContainers", ())]:
        yield from _container(container, granted)
    own = f"ft-{job['metadata']['name'][:30]}-{job['metadata']['uid'][:8]}"
    for volume in pod["volumes"]:
        yield from _volume(volume, own, granted)


def _container(container: Document, granted: Granted) -> Iterator[str]:
    spec = granted.runtime["spec"]
    yield from _more("fields of a container", set(container), CONTAINER_FIELDS)
    if container["image"] != spec["image"]:
        yield f"the image is {container['image']}"
    if container["args"][0] not in ("prepare", "train", "report", "read") or container["args"][1:3] != ["--config", c.CONFIG_FILE]:
        yield f"the arguments are {container['args']}"
    given = {each["name"]: each["value"] for each in spec.get("env", ())}
    yield from _more("environment", {each["name"] for each in container["env"]}, OWN_ENVIRONMENT | set(given))
    if any("valueFrom" in each for each in container["env"]):
        yield "the environment comes from elsewhere"
    if any(each["value"] != given[each["name"]] for each in container["env"] if each["name"] in given):
        yield "the environment has another value than the runtime's"
    security = container["securityContext"]
    if security["allowPrivilegeEscalation"] or not security["readOnlyRootFilesystem"] or security["capabilities"] != {"drop": ["ALL"]}:
        yield f"the container's security is {security}"
    for mount in container["volumeMounts"]:
        if ".." in mount["mountPath"].split("/") or "subPath" in mount or "subPathExpr" in mount:
            yield f"there is a mount at {mount}"


def _volume(volume: Document, own: str, granted: Granted) -> Iterator[str]:
    if claim := volume.get("persistentVolumeClaim"):
        if claim["claimName"] not in granted.claims | {own}:
            yield f"it mounts the claim {claim['claimName']}"
        if claim["claimName"] in granted.read_only and not claim.get("readOnly"):
            yield f"it writes to the claim {claim['claimName']}"
    elif secret := volume.get("secret"):
        if secret["secretName"] not in granted.secrets or [item["key"] for item in secret["items"]] != ["token"]:
            yield f"it mounts the Secret {secret['secretName']}"
    elif projected := volume.get("projected"):
        tokens = [source["serviceAccountToken"]["audience"] for source in projected["sources"] if "serviceAccountToken" in source]
        kinds = {kind for source in projected["sources"] for kind in source}
        if tokens != [c.PROGRESS_AUDIENCE] or kinds != {"serviceAccountToken", "downwardAPI"}:
            yield f"it has the projected volume {projected}"
    elif set(volume) - {"name"} not in ({"emptyDir"}, {"downwardAPI"}):
        yield f"it has the volume {volume}"


def _more(what: str, found: set[str], allowed: set[str]) -> Iterator[str]:
    if found - allowed:
        yield f"{what}: {', '.join(sorted(found - allowed))}"
