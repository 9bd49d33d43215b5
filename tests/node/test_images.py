"""The images in restricted pods: who they run as, that they need to write nothing, and that they start from bytecode."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.cluster import Cluster
from tests.cluster.images import Image, Images, recipes
from tests.cluster.pods import await_value, pod_path

RESTRICTED = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
USER = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
"""No number: the image's own, which has to be one for runAsNonRoot to be known."""

LOOK = """
import importlib.util, json, os, pwd, sys
from pathlib import Path
found = {"user": os.getuid(), "name": pwd.getpwuid(os.getuid()).pw_name, "home": os.environ["HOME"]}
found["writable"] = [place for place in ("/", "/app", "/opt/finetune", "/tmp") if os.access(place, os.W_OK)]
found["packages"] = sorted(name.name for name in Path("/app").glob("finetune_*") if "." not in name.name)
specs = [module.__spec__ for module in list(sys.modules.values()) if getattr(module, "__spec__", None)]
ours = [spec for spec in specs if spec.has_location and spec.cached and not spec.origin.startswith("/tmp/")]  # torch writes a module there
found["without bytecode"] = [spec.name for spec in ours if not Path(spec.cached).exists()]
print(json.dumps(found))
"""


def look(cluster: Cluster, namespace: str, image: Image, imports: str) -> dict[str, Any]:
    """What a process in this image sees after these imports."""
    container = {
        "name": "main",
        "image": image.reference,
        "imagePullPolicy": "Never",
        "command": ["python", "-c", imports + LOOK],
        "securityContext": RESTRICTED,
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
        "resources": {"requests": {"cpu": "500m"}},
    }
    spec = {"restartPolicy": "Never", "securityContext": USER, "automountServiceAccountToken": False, "enableServiceLinks": False}
    body = {
        "metadata": {"generateName": f"{image.name}-"},
        "spec": {**spec, "containers": [container], "volumes": [{"name": "tmp", "emptyDir": {}}]},
    }
    pod = cluster.api.post(f"/api/v1/namespaces/{namespace}/pods", body)

    def ended() -> dict[str, Any] | None:
        statuses = cluster.api.get(pod_path(pod))["status"].get("containerStatuses", [])
        return next((status["state"]["terminated"] for status in statuses if "terminated" in status["state"]), None)

    state = await_value(ended, what=f"the end of {pod['metadata']['name']}", timeout=240)
    log = cluster.api.text(f"{pod_path(pod)}/log")
    assert state["exitCode"] == 0, log
    found: dict[str, Any] = json.loads(log.splitlines()[-1])
    return found


def test_the_trainers_image(node_cluster: Cluster, namespace: str, images: Images) -> None:
    imports = "from finetune_trainer.lean import lean_imports\nwith lean_imports():\n    from finetune_trainer import recipe\n"
    assert look(node_cluster, namespace, images.trainer, imports) == {
        "user": 65532,
        "name": "finetune",
        "home": "/tmp",
        "writable": ["/tmp"],
        "packages": ["finetune_api", "finetune_cli", "finetune_trainer"],
        "without bytecode": [],
    }


def test_the_operators_image(node_cluster: Cluster, namespace: str, images: Images) -> None:
    assert look(node_cluster, namespace, images.operator, "import finetune_operator.__main__\n") == {
        "user": 65532,
        "name": "finetune",
        "home": "/tmp",
        "writable": ["/tmp"],
        "packages": ["finetune_api", "finetune_operator"],
        "without bytecode": [],
    }


@pytest.mark.parametrize("name", ["trainer", "operator"])
def test_an_image_says_what_it_is(images: Images, name: str) -> None:
    said = images.configuration(getattr(images, name))
    assert said["User"] == "65532:65532", "numbers: runAsNonRoot knows no names"
    assert said["Entrypoint"] == ["python", "-m", f"finetune_{name}"]
    assert said.get("Healthcheck", {"Test": ["NONE"]}) == {"Test": ["NONE"]}, "Kubernetes has probes"
    given, labels = recipes.labels(name), {key.removeprefix("org.opencontainers.image."): text for key, text in said["Labels"].items()}
    assert (labels["version"], labels["revision"], labels["source"]) == (given["VERSION"], given["REVISION"], given["SOURCE"])
    assert (labels["title"], labels["licenses"]) == (f"finetune-{name}", "Apache-2.0")
    assert labels["description"]
