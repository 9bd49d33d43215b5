"""A node that has gone silent: its pod can't be told to stop, and nothing replaces it, until the operator gives it up.

The pod is deleted by force, its Job in the background, and the next attempt goes elsewhere. The silent node's container may still write: the
trainer's epochs keep what it writes apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from finetune_api.constants import AttemptReason, ConditionReason
from finetune_api.v1alpha1.status import Phase
from finetune_operator.case import Case, Step, delete_job, needing
from finetune_operator.endings import needs_boot
from finetune_operator.model import Delete, Need
from finetune_operator.views import PodView, condition, parse_time

OVERDUE: Final = timedelta(seconds=30)
"""After a pod's grace has ended, until its node is suspected."""
LOOK_AGAIN_SECONDS: Final = 5.0


def lost_node(case: Case) -> Step | None:
    """Give up the pods of a node that has been silent for nodeLostAfterSeconds."""
    suspects = [pod for pod in case.pods if not pod.over and pod.node and _is_suspect(case, pod)]
    restarted = [pod for pod in case.pods if pod.over and needs_boot(pod) and _is_open(case, pod)]
    if not (suspects or restarted):
        return None
    if case.seen.pod_nodes is None:
        return needing(Need.POD_NODES)
    waits: list[tuple[float, PodView]] = []
    for pod in suspects:
        silent = _silent_seconds(case, case.seen.pod_nodes.get(pod.node or ""))
        if silent is not None:
            waits.append((case.runtime.node_lost_after_seconds - silent, pod))
    lost = [pod for seconds, pod in waits if seconds <= 0]
    if lost:
        return _give_up(case, lost)
    if not waits:
        return None
    seconds, pod = min(waits, key=lambda wait: wait[0])
    return Step(
        Phase.RUNNING,
        ConditionReason.NODE_SILENT,
        f"node {pod.node} says nothing more; if that lasts {case.runtime.node_lost_after_seconds} s in all, pod {pod.name} is given up and the "
        "attempt is repeated elsewhere",
        requeue_after=max(1.0, seconds),
    )


def _give_up(case: Case, lost: list[PodView]) -> Step:
    owners = {pod.owner for pod in lost}
    jobs = [job for job in case.jobs if job.uid in owners]
    forced = [Delete("Pod", pod.name, pod.uid, grace_seconds=0) for pod in lost if not _is_forced(pod)]
    pod = lost[0]
    return Step(
        Phase.PENDING,
        ConditionReason.NODE_SILENT,
        f"node {pod.node} was silent for {case.runtime.node_lost_after_seconds} s: pod {pod.name} is given up. On a ReadWriteOnce claim the next "
        "attempt waits until the storage has left that node",
        actions=(*forced, *(delete_job(job) for job in jobs if not job.deleting)),
        intents={job.name: AttemptReason.NODE_LOST for job in jobs},
        requeue_after=LOOK_AGAIN_SECONDS,
    )


def _is_suspect(case: Case, pod: PodView) -> bool:
    until = pod.deleting_until
    return pod.not_ready or (until is not None and case.now > until + OVERDUE)


def _is_open(case: Case, pod: PodView) -> bool:
    """Whether nothing is recorded yet of how it ended."""
    recorded = (case.seen.job.get("status") or {}).get("attempts") or []
    return not any(each.get("pod") == pod.name and each.get("finishedAt") for each in recorded)


def _is_forced(pod: PodView) -> bool:
    return pod.manifest["metadata"].get("deletionGracePeriodSeconds") == 0 and pod.deleting_until is not None


def _silent_seconds(case: Case, node: Mapping[str, Any] | None) -> float | None:
    """Return for how long nothing was heard of a node; None where it is heard. One that is gone stays silent."""
    if node is None:
        return float(case.runtime.node_lost_after_seconds)
    ready = condition(node, "Ready")
    if ready is not None and ready.get("status") != "Unknown":
        return None
    since = parse_time((ready or {}).get("lastTransitionTime")) or parse_time(node["metadata"].get("creationTimestamp"))
    return max(0.0, (case.now - since).total_seconds()) if since is not None else 0.0
