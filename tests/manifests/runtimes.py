"""ClusterFineTuneRuntimes that both judges take, and such with one mistake."""

from __future__ import annotations

from typing import Any, Final

from tests.builders import LEFT_OUT, Document, edited
from tests.manifests.cases import Broken

DIGEST: Final = "sha256:" + "2c26b46b68ffc68f" * 4
GPU: Final = "nvidia.com/gpu"


def runtime(name: str = "torch-cuda", **spec: Any) -> Document:
    """Return a runtime with an image and a claim template."""
    return {
        "apiVersion": "finetune.dev/v1alpha1",
        "kind": "ClusterFineTuneRuntime",
        "metadata": {"name": name},
        "spec": {"image": f"registry.example.com/trainer@{DIGEST}", "storage": {"claimTemplate": {"size": "100Gi"}}, **spec},
    }


RUNTIME: Final = runtime()
WHOLE: Final = edited(
    runtime("torch-cuda.v2"),
    {
        "metadata.annotations": {"finetune.dev/default-runtime": "true"},
        "spec.imagePullPolicy": "Always",
        "spec.imagePullSecrets": [{"name": "registry"}],
        "spec.prepare": "inTrainPod",
        "spec.gpuResourceName": "amd.com/gpu",
        "spec.gpus": 2,
        "spec.threads": 8,
        "spec.resources": {
            "prepare": {"requests": {"cpu": 4, "memory": "16Gi"}, "limits": {"memory": "16Gi"}},
            "train": {"requests": {"cpu": "7500m", "memory": "64Gi", "rdma/hca": 1, "hugepages-2Mi": "1Gi"}, "limits": {"memory": "64Gi"}},
            "report": {"requests": {"cpu": "0.5"}, "limits": {"ephemeral-storage": "1G"}},
        },
        "spec.sharedMemory": "16Gi",
        "spec.storage": {"claimTemplate": {"className": "fast", "accessMode": "ReadWriteMany", "size": "500Gi"}},
        "spec.claims": [{"name": "models", "claimName": "shared-models", "readOnly": True}],
        "spec.secrets": [{"name": "hub", "secretName": "hub-token"}],
        "spec.env": [{"name": "HTTPS_PROXY", "value": "http://proxy.example.com:3128"}, {"name": "EMPTY", "value": ""}],
        "spec.queueName": "team-queue",
        "spec.priorityClassName": "batch-low",
        "spec.runtimeClassName": "nvidia",
        "spec.nodeSelector": {"accelerator": "h100", "example.com/pool": ""},
        "spec.tolerations": [
            {"operator": "Exists"},
            {"key": GPU, "operator": "Exists", "effect": "NoSchedule"},
            {"key": "team", "value": "a", "effect": "NoExecute", "tolerationSeconds": 60},
        ],
        "spec.affinity": {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}]
                }
            }
        },
        "spec.podLabels": {"sidecar.istio.io/inject": "false", "team": "a"},
        "spec.podAnnotations": {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false"},
        "spec.metricsPort": 9400,
        "spec.nodeLostAfterSeconds": 60,
        "spec.stalledAfterSeconds": 3600,
        "spec.terminationGracePeriodSeconds": 120,
    },
)
VALID_RUNTIMES: Final[dict[str, Document]] = {
    "the least that a runtime can be": RUNTIME,
    "every field": WHOLE,
    "a claim that is there": edited(RUNTIME, {"spec.storage": {"claimName": "finetune-runs"}}),
    "no GPUs": edited(RUNTIME, {"spec.gpus": 0}),
    "nulls for what is left out": edited(RUNTIME, {"spec.threads": None, "spec.affinity": None, "spec.storage.claimName": None}),
    "a registry with a port": edited(RUNTIME, {"spec.image": f"localhost:5000/a/b@{DIGEST}"}),
    "a tag beside the digest": edited(RUNTIME, {"spec.image": f"a/b:v1@{DIGEST}"}),
}


def _broken(name: str, edits: dict[str, Any], at: str, says: str, *, pruned: bool = False, base: Document = RUNTIME) -> Broken:
    return Broken(name, edits, at, says, base=base, pruned=pruned)


BROKEN_RUNTIMES: Final = (
    _broken("no image", {"spec.image": LEFT_OUT}, "spec.image", "this field is required"),
    _broken("an image by tag", {"spec.image": "a/b:latest"}, "spec.image", "write it by digest: NAME@sha256:"),
    _broken("an image by neither", {"spec.image": "a/b"}, "spec.image", "an image without a digest can change under a running job"),
    _broken("a digest that is cut", {"spec.image": "a/b@sha256:2c26"}, "spec.image", "this digest is cut off or mistyped"),
    _broken("a digest without an image", {"spec.image": f"@{DIGEST}"}, "spec.image", "no image is named before the digest"),
    _broken("no storage", {"spec.storage": LEFT_OUT}, "spec.storage", "this field is required"),
    _broken("storage that is nothing", {"spec.storage": {}}, "spec.storage", "no claim is given for the run folders"),
    _broken(
        "storage that is both",
        {"spec.storage.claimName": "runs"},
        "spec.storage",
        "two claims are given for the run folders",
    ),
    _broken("a claim without a size", {"spec.storage": {"claimTemplate": {}}}, "spec.storage.claimTemplate.size", "this field is required"),
    _broken("a size in words", {"spec.storage.claimTemplate.size": "100 GB"}, "spec.storage.claimTemplate.size", "such as 4, 500m or 16Gi"),
    _broken("a negative amount", {"spec.resources": {"train": {"limits": {"cpu": -1}}}}, "spec.resources.train.limits.cpu", "such as 4"),
    _broken(
        "a fraction without quotes", {"spec.resources": {"train": {"limits": {"cpu": 0.5}}}}, "spec.resources.train.limits.cpu", "quotes"
    ),
    _broken(
        "no such access mode", {"spec.storage.claimTemplate.accessMode": "RWX"}, "spec.storage.claimTemplate.accessMode", "ReadWriteMany"
    ),
    _broken("a prepare that is none", {"spec.prepare": "never"}, "spec.prepare", "write one of ownPod, inTrainPod"),
    _broken("a pull policy that is none", {"spec.imagePullPolicy": "Sometimes"}, "spec.imagePullPolicy", "write one of Always"),
    *(
        _broken(
            f"{role}: {amounts} of what no resource is called",
            {f"spec.resources.{role}": {amounts: {"mem": "1Gi"}}},
            f"spec.resources.{role}.{amounts}",
            '"mem": no resource has this name: write cpu, memory',
        )
        for role in ("prepare", "train", "report")
        for amounts in ("requests", "limits")
    ),
    *(
        _broken(
            f"{role}: GPUs among the {amounts}",
            {f"spec.resources.{role}": {amounts: {GPU: 1}}},
            f"spec.resources.{role}.{amounts}",
            "GPUs are counted elsewhere",
        )
        for role in ("prepare", "train", "report")
        for amounts in ("requests", "limits")
    ),
    _broken(
        "GPUs of another vendor",
        {"spec.gpuResourceName": "amd.com/gpu", "spec.resources": {"train": {"limits": {"amd.com/gpu": 1}}}},
        "spec.resources.train.limits",
        "GPUs are counted elsewhere",
    ),
    _broken("a GPU resource without a domain", {"spec.gpuResourceName": "gpu"}, "spec.gpuResourceName", "DOMAIN/NAME"),
    _broken("seventeen GPUs", {"spec.gpus": 17}, "spec.gpus", "at most 16"),
    _broken("no threads", {"spec.threads": 0}, "spec.threads", "at least 1"),
    *(
        _broken(f"a reserved prefix in {field}", {f"spec.{field}": {key: "x"}}, f"spec.{field}", "use a prefix of your own")
        for field, key in (("podLabels", "finetune.dev/job-uid"), ("podAnnotations", "finetune.dev/trainer-config"))
    ),
    _broken("the Job controller's label", {"spec.podLabels": {"batch.kubernetes.io/job-name": "x"}}, "spec.podLabels", "of your own"),
    *(
        _broken(
            f"a key with a space in {field}", {f"spec.{field}": {"my key": "x"}}, f"spec.{field}", '"my key": this key has the wrong form'
        )
        for field in ("podLabels", "podAnnotations", "nodeSelector")
    ),
    _broken("a label's value with a space", {"spec.podLabels": {"team": "team a"}}, "spec.podLabels.team", "letters, digits"),
    *(
        _broken(f"the variable {name}", {"spec.env": [{"name": name, "value": "1"}]}, "spec.env[0].name", "the operator sets this variable")
        for name in ("OMP_NUM_THREADS", "HOME", "FINETUNE_TERMINATION_LOG", "DISABLE_KUBEFLOW_INTEGRATION")
    ),
    _broken(
        "a variable with a hyphen",
        {"spec.env": [{"name": "MY-VAR", "value": "1"}]},
        "spec.env[0].name",
        "write letters, digits and '_', beginning with no digit",
    ),
    _broken(
        "a variable from a Secret",
        {"spec.env": [{"name": "A", "value": "1", "valueFrom": {}}]},
        "spec.env[0].valueFrom",
        "no such field",
        pruned=True,
    ),
    *(
        _broken(f"the same twice: {field}", {f"spec.{field}": [entry, entry]}, f"spec.{field}[1].name", f"this name is taken by {field}[0]")
        for field, entry in (
            ("env", {"name": "A", "value": "1"}),
            ("claims", {"name": "models", "claimName": "a"}),
            ("secrets", {"name": "hub", "secretName": "a"}),
            ("imagePullSecrets", {"name": "registry"}),
        )
    ),
    _broken("nine claims", {"spec.claims": [{"name": f"c{n}", "claimName": "a"} for n in range(9)]}, "spec.claims", "at most 8 entries"),
    _broken(
        "a toleration of all, with a value",
        {"spec.tolerations": [{"operator": "Exists", "value": "x"}]},
        "spec.tolerations[0].value",
        "Equal",
    ),
    _broken("a toleration of nothing", {"spec.tolerations": [{"value": "x"}]}, "spec.tolerations[0].key", "operator: Exists"),
    _broken(
        "a toleration that ends nowhere",
        {"spec.tolerations": [{"key": "a", "tolerationSeconds": 5}]},
        "spec.tolerations[0].tolerationSeconds",
        "NoExecute",
    ),
    _broken(
        "an affinity to nothing",
        {"spec.affinity": {"nodeAfinity": {}}},
        "spec.affinity.nodeAfinity",
        "did you mean nodeAffinity?",
        pruned=True,
    ),
    _broken("a queue with a slash", {"spec.queueName": "team/queue"}, "spec.queueName", "letters, digits"),
    _broken("a command", {"spec.command": ["sh"]}, "spec.command", "there is no such field", pruned=True),
    _broken("a node that is lost at once", {"spec.nodeLostAfterSeconds": 1}, "spec.nodeLostAfterSeconds", "at least 10"),
    _broken("a port that needs a right", {"spec.metricsPort": 80}, "spec.metricsPort", "at least 1024"),
    _broken("a port that is none", {"spec.metricsPort": 65536}, "spec.metricsPort", "at most 65535"),
    _broken("a trainer that hangs at once", {"spec.stalledAfterSeconds": 30}, "spec.stalledAfterSeconds", "at least 60"),
    _broken("no time to save", {"spec.terminationGracePeriodSeconds": 5}, "spec.terminationGracePeriodSeconds", "at least 10"),
    _broken("a name with capitals", {"metadata.name": "Torch"}, "metadata.name", "lower-case letters"),
)
