"""A stage for trouble: a namespace with its storage and its runtimes, an operator, and a hand that plays the kubelet."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Final

from finetune_api import constants as c
from finetune_operator.kinds import CLAIM, POD, RUNTIME
from tests.apiserver.puppet import BY_HAND, Puppet
from tests.apiserver.recorder import Recorder
from tests.apiserver.trouble_job import Trial, one_stage
from tests.apiserver.trouble_operator import TroubleOperator
from tests.builders import Document
from tests.cluster import Cluster
from tests.cluster.api import Api, Object
from tests.cluster.namespaces import fresh_namespace
from tests.cluster.pods import await_value

IMAGE: Final = "registry.example.com/trainer@sha256:" + "a" * 64
DEFAULT: Final = "cpu"
"""The runtime that trials use where they name none: it prepares in the training pod, so that a job is one segment, and takes no GPU."""


def runtime_manifest(name: str, *, default: bool = False, **spec: Any) -> Document:
    """A ClusterFineTuneRuntime for pods whose kubelet is a test."""
    given = {
        "image": IMAGE,
        "storage": {"claimName": "runs"},
        "prepare": "inTrainPod",
        "gpus": 0,
        "podAnnotations": BY_HAND,
        "nodeSelector": {"type": "kwok"},
    }
    return {
        "apiVersion": c.API_VERSION,
        "kind": c.RUNTIME_KIND,
        "metadata": {"name": name, "annotations": {c.DEFAULT_RUNTIME_ANNOTATION: "true"} if default else {}},
        "spec": {**given, **spec},
    }


class Scene:
    def __init__(self, cluster: Cluster, namespace: str, operator: TroubleOperator, recorder: Recorder) -> None:
        self.cluster = cluster
        self.api: Api = cluster.api
        self.namespace = namespace
        self.operator = operator
        self.recorder = recorder
        self.puppet = Puppet(cluster.api, now=operator.clock.now)
        """Its clock agrees with the operator's."""
        self._runtimes: set[str] = set()

    def runtime(self, suffix: str, *, default: bool = False, **spec: Any) -> str:
        """Make a ClusterFineTuneRuntime. Returns its name, which no other stage has."""
        name = f"{self.namespace}-{suffix}"
        self.api.post(RUNTIME.path(), runtime_manifest(name, default=default, **spec))
        self._runtimes.add(name)
        return name

    def remove_runtime(self, name: str) -> None:
        self.api.delete(RUNTIME.path(None, name))
        self._runtimes.discard(name)

    def trial(self, name: str, *, runtime: str | None = DEFAULT, manifest: Document | None = None, **edits: Any) -> Trial:
        """A FineTuneJob of one stage that is not created yet; edits by path, with `__` for a dot. runtime: a suffix, None to name none."""
        if runtime == DEFAULT and f"{self.namespace}-{DEFAULT}" not in self._runtimes:
            self.runtime(DEFAULT)
        named = {"spec__runtimeRef": {"name": f"{self.namespace}-{runtime}"}} if runtime is not None else {}
        return Trial(self.api, self.puppet, one_stage(name, self.namespace, manifest, **named, **edits))

    def claim(self, name: str, *, size: str = "1Gi", **spec: Any) -> Object:
        """Make a claim of the class that binds at once, for all nodes."""
        wanted = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": size}}, "storageClassName": "shared", **spec}
        return self.api.post(CLAIM.path(self.namespace), {"metadata": {"name": name}, "spec": wanted})

    def await_bound(self, name: str) -> None:
        path = CLAIM.path(self.namespace, name)
        await_value(lambda: self.api.get(path)["status"].get("phase") == "Bound", what=f"claim {name} is bound", timeout=120)

    def close(self) -> None:
        """Remove what would outlive the namespace, and let pods that nobody stops any more go."""
        for name in sorted(self._runtimes):
            self.remove_runtime(name)
        for pod in self.api.items(POD.path(self.namespace)):
            self.api.delete(POD.path(self.namespace, pod["metadata"]["name"]), grace=0)


@contextlib.contextmanager
def scene(cluster: Cluster) -> Iterator[Scene]:
    """A namespace with a bound claim `runs`, and an operator that serves it alone."""
    with (
        fresh_namespace(cluster) as namespace,
        TroubleOperator(cluster, namespace) as operator,
        Recorder(cluster.api, namespace) as recorder,
    ):
        made = Scene(cluster, namespace, operator, recorder)
        made.claim("runs")
        made.await_bound("runs")
        try:
            yield made
        finally:
            operator.stop()
            made.close()
