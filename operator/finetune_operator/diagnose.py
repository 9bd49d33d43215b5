"""What a pod or a Job waits for, from what the scheduler, the kubelet and the Job controller say. Pure; asks for events only where they decide.

The texts of other programs are matched by the words that they have had for years; what is not recognised is handed on as it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from finetune_api.constants import ConditionReason
from finetune_operator.case import START_SECONDS, Case
from finetune_operator.model import Manifest, Need
from finetune_operator.views import JobView, PodView, condition, parse_time

_IMAGE: Final = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError", "RegistryUnavailable")
_REFUSED: Final = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")
_LIMIT_RANGE: Final = "a LimitRange of the namespace forbids the runtime's resources (have one of the two changed)"
_POD_RULES: Final = (
    (
        "exceeded quota",
        ConditionReason.QUOTA_EXCEEDED,
        "a ResourceQuota of the namespace leaves no room (wait until other pods end, or have it raised)",
    ),
    (
        "failed quota",
        ConditionReason.POD_REFUSED,
        "a ResourceQuota of the namespace wants to know what each container takes (have the runtime's resources say it, for every role)",
    ),
    ("being terminated", ConditionReason.NAMESPACE_TERMINATING, "the namespace is being deleted"),
    ("usage per", ConditionReason.LIMIT_RANGE, _LIMIT_RANGE),
    ("limit to request ratio", ConditionReason.LIMIT_RANGE, _LIMIT_RANGE),
    (
        "violates PodSecurity",
        ConditionReason.POD_REFUSED,
        "the namespace's Pod Security level refuses the pod (have the level or the runtime changed)",
    ),
    (
        "RuntimeClass",
        ConditionReason.POD_REFUSED,
        "the runtime names a RuntimeClass that can't be used (have its runtimeClassName corrected, or the class made)",
    ),
    (
        "no PriorityClass",
        ConditionReason.POD_REFUSED,
        "the runtime names a PriorityClass that is not there (have its priorityClassName corrected, or the class made)",
    ),
)
_CLAIM_RULES: Final = (
    (
        r"""(?:persistentvolumeclaim "([^"]+)" not found|could not find v1.PersistentVolumeClaim "[^"/]+/([^"]+)")""",
        ConditionReason.CLAIM_MISSING,
        "claim {} is not there: make it, or correct its name",
    ),
    (
        r'persistentvolumeclaim "([^"]+)" is being deleted',
        ConditionReason.CLAIM_TERMINATING,
        "claim {} is being deleted: when it is gone, make it again, or the job, if the claim was the job's own",
    ),
    (
        r"unbound immediate PersistentVolumeClaims|didn't find available persistent volumes",
        ConditionReason.CLAIM_UNBOUND,
        "a claim is not bound to a volume: `kubectl describe pvc` says why",
    ),
    (
        r"volume node affinity conflict|didn't match PersistentVolume's node affinity|can't satisfy .*volume|in use by pod with the same ReadWriteOncePod",
        ConditionReason.CLAIM_ELSEWHERE,
        "a claim's volume is bound to a node that the pod may not run on: have the runtime's nodeSelector admit that node, or take a claim "
        "that every node reaches",
    ),
)
_MOUNT_RULES: Final = (
    (r'secret "([^"]+)" not found', ConditionReason.SECRET_MISSING, "Secret {} is not there: make it with the key token"),
    (
        r"references non-existent secret key: (\S+)",
        ConditionReason.SECRET_KEY_MISSING,
        "a Secret has no key {}: add it, the trainer reads its token there",
    ),
    (r'persistentvolumeclaim "([^"]+)" not found', ConditionReason.CLAIM_MISSING, "claim {} is not there: make it, or correct its name"),
    (
        r"Multi-Attach error",
        ConditionReason.CLAIM_ELSEWHERE,
        "a ReadWriteOnce volume is still attached to another node, and comes when that node lets it go",
    ),
)

_NODE_WANTED: Final = "(Free, add or label a node for it, or have the runtime's nodeSelector, tolerations or resources changed.)"


@dataclass(frozen=True)
class Finding:
    reason: ConditionReason
    message: str


def without_pod(events: tuple[Manifest, ...], job: JobView, *, since: datetime | None = None) -> Finding | None:
    """Say why a Job has no pod, from its newest event FailedCreate; one from before `since`, when its last pod was made, explains nothing."""
    later = events if since is None else tuple(event for event in events if (parse_time(event_time(event)) or since) >= since)
    said = _newest(later, job.uid, ("FailedCreate",))
    if said is None:
        return None
    for words, reason, meaning in _POD_RULES:
        if words in said:
            return Finding(reason, f"{meaning}: {_tidy(said)}")
    return Finding(ConditionReason.POD_REFUSED, f"no pod could be made (have the runtime changed, or what refuses it): {_tidy(said)}")


def pod_waits_for(pod: PodView, case: Case) -> Finding | Need | None:
    """Say what a pod waits for, None where it just starts, or what must be read to tell."""
    scheduled = condition(pod.manifest, "PodScheduled")
    if scheduled is not None and scheduled.get("status") == "False":
        return _unscheduled(str(scheduled.get("message") or ""), str(scheduled.get("reason") or ""), case)
    for status in pod.containers:
        wait = (status.get("state") or {}).get("waiting") or {}
        if wait.get("reason") in _IMAGE:
            return Finding(ConditionReason.IMAGE_UNAVAILABLE, _image(str(status.get("image") or case.runtime.image), wait))
        if wait.get("reason") in _REFUSED:
            return _matched(str(wait.get("message") or ""), _MOUNT_RULES) or Finding(
                ConditionReason.CONTAINER_REFUSED, f"the container can't be made ({wait['reason']}): {wait.get('message', '')}"
            )
    since = pod.started or pod.created
    if since is None or (case.now - since).total_seconds() < START_SECONDS:
        return None
    if case.seen.events is None:
        return Need.EVENTS
    said = _newest(case.seen.events, pod.uid, ("FailedMount", "FailedAttachVolume"))
    return (
        (_matched(said, _MOUNT_RULES) or Finding(ConditionReason.STARTING, f"pod {pod.name}: {_tidy(said)}")) if said is not None else None
    )


def event_time(event: Manifest) -> str:
    """When an event was seen last: RFC 3339, which sorts as text."""
    series = event.get("series") or {}
    created = event.get("metadata", {}).get("creationTimestamp")
    return str(series.get("lastObservedTime") or event.get("lastTimestamp") or event.get("eventTime") or created)


def _unscheduled(said: str, reason: str, case: Case) -> Finding | Need:
    if reason == "SchedulingGated":
        return Finding(ConditionReason.QUEUED, "the pod waits for a scheduling gate to be lifted")
    resource = case.runtime.gpu_resource_name
    if f"Insufficient {resource}" in said:
        return _gpus(case.seen.nodes, resource, said) if case.seen.nodes is not None else Need.NODES
    return _matched(said, _CLAIM_RULES) or Finding(ConditionReason.UNSCHEDULABLE, f"no node takes the pod: {said} {_NODE_WANTED}")


def _gpus(nodes: tuple[Manifest, ...], resource: str, said: str) -> Finding:
    having = [node for node in nodes if _amount(node, resource) > 0]
    total = sum(_amount(node, resource) for node in nodes)
    if not having:
        return Finding(
            ConditionReason.GPU_UNAVAILABLE,
            f"none of the {len(nodes)} nodes has {resource}: the platform team must add one, or name another gpuResourceName in the runtime",
        )
    return Finding(
        ConditionReason.GPU_UNAVAILABLE,
        f"{len(having)} of {len(nodes)} nodes have {resource} ({total} in all), and none has as many free as the pod asks for "
        f"(wait until others end, or ask for fewer: resources.gpus of the stage, or gpus of the runtime): {said}",
    )


def _amount(node: Mapping[str, Any], resource: str) -> int:
    text = str(((node.get("status") or {}).get("allocatable") or {}).get(resource, "0"))
    return int(text) if text.isdigit() else 0


def _image(image: str, wait: Mapping[str, Any]) -> str:
    """The kubelet's words change with each try; what the registry said is the same in all of them."""
    said = str(wait.get("message") or "").rpartition("ErrImagePull: ")[2]
    if said.startswith("Back-off pulling image"):
        said = ""
    return f"image {image} can't be pulled" + (f": {_tidy(said)}" if said else "") + ": the runtime's image or imagePullSecrets are wrong"


def _matched(said: str | None, rules: tuple[tuple[str, ConditionReason, str], ...]) -> Finding | None:
    for pattern, reason, meaning in rules:
        found = re.search(pattern, said or "")
        if found is not None:
            return Finding(reason, meaning.format(next(iter(filter(None, found.groups())), "")))
    return None


def _newest(events: tuple[Manifest, ...], uid: str, reasons: tuple[str, ...]) -> str | None:
    about = [event for event in events if (event.get("involvedObject") or {}).get("uid") == uid and event.get("reason") in reasons]
    return str(about[-1].get("message") or "") if about else None


def _tidy(text: str) -> str:
    return " ".join(text.split())[:1024]
