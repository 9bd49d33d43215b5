"""Plays the kubelet, by hand: whatever a kubelet could say of a pod or a node, said at once, so that each kind of trouble is some lines.

The pods carry the annotation `test-cluster/by-hand`, which keeps kwok away from them; the scheduler and the controllers are real. Nothing
here waits for anything but what the API server answers.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from finetune_api.constants import ExitCode
from finetune_operator.views import format_time
from tests.cluster.api import Api, Object
from tests.cluster.pods import pod_path

BY_HAND: Final = {"test-cluster/by-hand": "true"}
_NUMBERS: Final = itertools.count(1)


def machine_time() -> datetime:
    return datetime.now(UTC)


class Puppet:
    """A kubelet whose clock is `now`: another one than the API server's where a test says so."""

    def __init__(self, api: Api, *, now: Callable[[], datetime] = machine_time) -> None:
        self._api = api
        self.now = now

    # A pod's life

    def run(self, pod: Object) -> Object:
        """Its init containers have succeeded, and its containers run."""
        now = self._time()
        ended = {"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": now, "finishedAt": now}}
        status = {
            "phase": "Running",
            "startTime": now,
            "conditions": _merged(pod, Ready="True", ContainersReady="True", Initialized="True", at=now),
            "initContainerStatuses": [_container(spec, ended) for spec in pod["spec"].get("initContainers") or []],
            "containerStatuses": [_container(spec, {"running": {"startedAt": now}}) for spec in pod["spec"]["containers"]],
        }
        return self._say(pod, status)

    def initialise(self, pod: Object) -> Object:
        """Its first init container runs."""
        now = self._time()
        waiting = {"waiting": {"reason": "PodInitializing"}}
        status = {
            "phase": "Pending",
            "startTime": now,
            "initContainerStatuses": [_container(spec, {"running": {"startedAt": now}}) for spec in pod["spec"]["initContainers"]],
            "containerStatuses": [_container(spec, waiting) for spec in pod["spec"]["containers"]],
        }
        return self._say(pod, status)

    def wait(self, pod: Object, reason: str, message: str) -> Object:
        """Its containers can't be started: ImagePullBackOff, CreateContainerConfigError, ..."""
        waiting = {"waiting": {"reason": reason, "message": message}}
        first = "initContainers" if pod["spec"].get("initContainers") else "containers"
        statuses = [_container(spec, waiting) for spec in pod["spec"][first]]
        kind = "initContainerStatuses" if first == "initContainers" else "containerStatuses"
        return self._say(pod, {"phase": "Pending", "startTime": self._time(), kind: statuses})

    def finish(
        self, pod: Object, code: int = 0, message: str = "", *, reason: str = "", messages: Mapping[str, str] | None = None
    ) -> Object:
        """Its containers have ended with this exit code and termination message (or each with its own of `messages`)."""
        now = self._time()
        why = reason or ("Completed" if code == 0 else "Error")
        begun = pod["status"].get("startTime", now)
        statuses = [
            _container(
                spec,
                {
                    "terminated": {
                        "exitCode": code,
                        "reason": why,
                        "message": (messages or {}).get(spec["name"], message),
                        "startedAt": begun,
                        "finishedAt": now,
                    }
                },
            )
            for spec in pod["spec"]["containers"]
        ]
        conditions = _merged(pod, Ready="False", ContainersReady="False", at=now)
        return self._say(
            pod, {"phase": "Failed" if code else "Succeeded", "startTime": begun, "conditions": conditions, "containerStatuses": statuses}
        )

    def refuse(self, pod: Object, reason: str, message: str) -> Object:
        """The kubelet does not admit it: it fails, and no container ever ran (UnexpectedAdmissionError)."""
        return self._say(pod, {"phase": "Failed", "reason": reason, "message": message})

    def disrupt(self, pod: Object, reason: str, message: str = "") -> Object:
        """The condition DisruptionTarget, as whoever takes a pod away sets it: PreemptionByScheduler, TerminationByKubelet, ..."""
        now = self._time()
        disrupted = {"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message, "lastTransitionTime": now}
        return self._say(pod, {"conditions": [*pod["status"].get("conditions", []), disrupted]})

    def remove(self, pod: Object) -> None:
        """The last thing that a kubelet does for a pod that is being deleted."""
        self._api.delete(pod_path(pod), grace=0, propagation="Background")

    def stop(self, pod: Object, code: int = ExitCode.STOPPED, message: str = "") -> None:
        """What follows SIGTERM: its containers end like this, and it is gone."""
        self.finish(pod, code, message)
        self.remove(pod)

    # What is told beside the status

    def event(self, about: Object, reason: str, message: str, *, kind: str = "Pod") -> None:
        """A warning of the kubelet: FailedMount, FailedAttachVolume, ..."""
        metadata, now = about["metadata"], self._time()
        reference = {"kind": kind, "apiVersion": "v1", **{key: metadata[key] for key in ("namespace", "name", "uid")}}
        self._api.post(
            f"/api/v1/namespaces/{metadata['namespace']}/events",
            {
                "metadata": {"name": f"{metadata['name']}.{next(_NUMBERS):08x}", "namespace": metadata["namespace"]},
                "involvedObject": reference,
                "reason": reason,
                "message": message,
                "type": "Warning",
                "source": {"component": "kubelet"},
                "firstTimestamp": now,
                "lastTimestamp": now,
                "count": 1,
            },
        )

    # Nodes

    def revive(self, node: str) -> None:
        """The node is ready. Nobody renews its lease: its controller calls it silent 20 s later."""
        self._condition(node, "True", "KubeletReady")

    @contextlib.contextmanager
    def heard(self, node: str) -> Iterator[None]:
        """The node is ready, and says so again and again until the block ends, however long that takes on a busy machine."""
        over = threading.Event()

        def beat() -> None:
            while not over.wait(5):
                self.revive(node)

        self.revive(node)
        thread = threading.Thread(target=beat, name=f"kubelet of {node}")
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def silence(self, node: str, pod: Object) -> None:
        """Nothing more is heard of the node: what its controller then writes to it and to its pod."""
        self._condition(node, "Unknown", "NodeStatusUnknown")
        not_ready = {"type": "Ready", "status": "False", "reason": "NodeNotReady", "lastTransitionTime": self._time()}
        self._api.patch(f"{pod_path(pod)}/status", {"status": {"conditions": [not_ready]}}, how="strategic")

    def _condition(self, node: str, status: str, reason: str) -> None:
        now = self._time()
        ready = {"type": "Ready", "status": status, "reason": reason, "lastTransitionTime": now, "lastHeartbeatTime": now}
        self._api.patch(f"/api/v1/nodes/{node}/status", {"status": {"conditions": [ready]}}, how="strategic")

    def _time(self) -> str:
        return format_time(self.now()) or ""

    def _say(self, pod: Object, status: Mapping[str, Any]) -> Object:
        return self._api.patch(f"{pod_path(pod)}/status", {"status": status})


def _container(spec: Mapping[str, Any], state: Mapping[str, Any]) -> Object:
    running = "running" in state
    return {
        "name": spec["name"],
        "image": spec["image"],
        "imageID": spec["image"] if running or "terminated" in state else "",
        "ready": running,
        "started": running,
        "restartCount": 0,
        "state": dict(state),
    }


def _merged(pod: Object, *, at: str, **conditions: str) -> list[Object]:
    """The pod's conditions with these in the place of those of before."""
    kept = [each for each in pod["status"].get("conditions") or [] if each["type"] not in conditions]
    return kept + [{"type": kind, "status": status, "lastTransitionTime": at} for kind, status in conditions.items()]
