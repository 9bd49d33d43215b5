"""What a kubelet would write into a pod's status, for tests on nodes without machines; and what tests wait for."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

from tests.cluster.api import Api, ApiError, Object

T = TypeVar("T")


def await_value(find: Callable[[], T | None], *, what: str, timeout: float = 180, every: float = 0.2) -> T:
    """The first value that is true; an AssertionError that says `what` was awaited after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        if found := find():
            return found
        assert time.monotonic() < deadline, f"{timeout:.0f} s passed without: {what}"
        time.sleep(every)


def is_established(definition: Object) -> bool:
    """Whether this CRD is served. Its conditions are null at first, on which `kubectl wait` gives up at once."""
    conditions = (definition.get("status") or {}).get("conditions") or ()
    return any(each["type"] == "Established" and each["status"] == "True" for each in conditions)


def await_served(api: Api, definition: str) -> None:
    """Wait until the resources of this CRD can be asked for."""
    path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{definition}"
    await_value(lambda: is_established(api.get(path)), what=f"{definition} being established")
    spec = api.get(path)["spec"]
    (version,) = [each["name"] for each in spec["versions"] if each["storage"]]
    resources = f"/apis/{spec['group']}/{version}/{spec['names']['plural']}"
    await_value(lambda: _answers(api, resources), what=f"{definition} being served")


def _answers(api: Api, path: str) -> bool:
    """Whether a list can be had; at first it is not known (404), or its storage is still being made (429)."""
    try:
        api.get(path, limit="1")
    except ApiError as error:
        if error.code in (404, 429, 503):
            return False
        raise
    return True


def pod_path(pod: Object) -> str:
    return f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"


def finish(api: Api, pod: Object, *, code: int = 0, message: str = "", reason: str = "", container: str = "") -> Object:
    """End this pod's containers (or one of them: the others with 0) with this exit code, termination message and reason (`OOMKilled`)."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    codes = {spec["name"]: code if container in ("", spec["name"]) else 0 for spec in pod["spec"]["containers"]}
    statuses = [
        {
            "name": spec["name"],
            "image": spec["image"],
            "imageID": spec["image"],
            "ready": False,
            "started": False,
            "restartCount": 0,
            "state": {
                "terminated": {
                    "exitCode": codes[spec["name"]],
                    "reason": reason or ("Completed" if codes[spec["name"]] == 0 else "Error"),
                    "message": message,
                    "startedAt": pod["status"].get("startTime", now),
                    "finishedAt": now,
                }
            },
        }
        for spec in pod["spec"]["containers"]
    ]
    phase = "Failed" if any(codes.values()) else "Succeeded"
    return api.patch(f"{pod_path(pod)}/status", {"status": {"phase": phase, "containerStatuses": statuses}})


def evict(api: Api, pod: Object) -> None:
    """By the eviction API: the pod gets the condition DisruptionTarget, and is deleted."""
    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": namespace}}
    api.post(f"{pod_path(pod)}/eviction", body)
