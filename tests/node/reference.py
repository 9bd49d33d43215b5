"""`finetune run` in the trainer's image: what every job of this tier must come to."""

from __future__ import annotations

import functools
import json
from typing import Any

from tests.cluster.api import Object
from tests.cluster.pods import await_value, pod_path
from tests.node.jobs import manifest
from tests.node.platform import ASSETS, PATIENCE, TEAM, Platform, write_manifest

CLAIM = "/finetune/claims/assets"
COMMAND = "python -m finetune_cli run {claim}/job.json --mount {assets}={claim} --run-folder /tmp/run --threads 1 --quiet --output json"


def pod(image: str, claim: str, folder: str, container: Object) -> Object:
    """A restricted pod by itself, with this claim at this folder."""
    whole = {
        "name": "finetune",
        "image": image,
        "imagePullPolicy": "Never",
        "securityContext": {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "data", "mountPath": folder, "readOnly": True}, {"name": "tmp", "mountPath": "/tmp"}],
        **container,
    }
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}, {"name": "tmp", "emptyDir": {}}]
    user = {"runAsNonRoot": True, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532, "seccompProfile": {"type": "RuntimeDefault"}}
    spec = {"restartPolicy": "Never", "automountServiceAccountToken": False, "securityContext": user}
    return {"metadata": {"generateName": "by-hand-"}, "spec": {**spec, "containers": [whole], "volumes": volumes}}


def start(platform: Platform, document: Object) -> Object:
    """`finetune run` of this job in a pod, without any operator."""
    write_manifest(platform.volume(ASSETS), document)
    container = {
        "command": COMMAND.format(claim=CLAIM, assets=ASSETS).split(),
        "env": [{"name": "OMP_NUM_THREADS", "value": "1"}],
        "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "2Gi"}},
    }
    body = pod(platform.images.trainer.reference, ASSETS, CLAIM, container)
    return platform.cluster.api.post(f"/api/v1/namespaces/{TEAM}/pods", body)


class Expected:
    """The pod of `finetune run`; whoever asks first waits for its end."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._pod = start(platform, manifest("by-hand"))

    @functools.cached_property
    def result(self) -> dict[str, Any]:
        """What it printed."""
        api = self._platform.cluster.api

        def ended() -> str | None:
            phase = api.get(pod_path(self._pod))["status"]["phase"]
            return phase if phase in ("Succeeded", "Failed") else None

        phase = await_value(ended, what="the end of `finetune run`", timeout=2 * PATIENCE, every=0.5)
        log = api.text(f"{pod_path(self._pod)}/log")
        assert phase == "Succeeded", log[-4000:]
        found: dict[str, Any] = json.loads(log[log.index("{\n") :])
        return found

    def weights(self) -> set[str]:
        """Digests of the weights that it published: at least one, or a job without any would equal it."""
        found = {artifact["weightsSha256"] for artifact in self.result["artifacts"] if "weightsSha256" in artifact}
        assert found, f"`finetune run` published no weights: {self.result['artifacts']}"
        return found
