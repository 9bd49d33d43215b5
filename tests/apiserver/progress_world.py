"""A cluster with the chart, in which pods run and a test reports for them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from finetune_api import constants as c
from scripts.render_chart import DIGEST
from tests.apiserver.installation import JOBS, apply, install, path_of, uninstall
from tests.apiserver.reporting import SECONDS, authority_of, port_of, report, token
from tests.builders import job, stage
from tests.cluster import Cluster
from tests.cluster.api import Api, Object
from tests.cluster.namespaces import fresh_namespace
from tests.cluster.pods import await_value

RUNTIME: Final = {
    "apiVersion": c.API_VERSION,
    "kind": c.RUNTIME_KIND,
    "metadata": {"name": "reports"},
    "spec": {
        "image": f"trainer@{DIGEST}",
        "gpus": 0,
        "prepare": "inTrainPod",
        "storage": {"claimTemplate": {"accessMode": "ReadWriteOnce", "size": "1Gi"}},
    },
}

DATA: Final = {"train": [{"uri": "hf://datasets/owner/name/x.jsonl"}], "validation": {"fraction": 0.1}}


@dataclass
class World:
    """A cluster with the chart, and an operator beside it that takes reports."""

    cluster: Cluster
    api: Api
    namespace: str
    log: Path

    @property
    def port(self) -> int:
        return port_of(self.log)

    def start(self, name: str, *stages: Object, **spec: Any) -> Object:
        """Make a job, of one stage where none is given; returns its pod, which runs and knows where to report."""
        made = job(*(stages or [stage("only", data=DATA)]), runtimeRef={"name": "reports"}, **spec)
        self.api.post(JOBS.format(self.namespace), {**made, "metadata": {"name": name}})
        return self.pod(name)

    def pod(self, name: str, *, other_than: str = "") -> Object:
        def found() -> Object | None:
            uid = self.job(name)["metadata"]["uid"]
            path = f"/api/v1/namespaces/{self.namespace}/pods"
            pods = self.api.items(path, labelSelector=f"{c.JOB_UID_LABEL}={uid}")
            running = [pod for pod in pods if pod["status"].get("phase") == "Running" and pod["metadata"]["name"] != other_than]
            return running[0] if running and self.status(name).get("phase") == "Running" else None

        return await_value(found, what=f"a running pod of {name}", timeout=SECONDS)

    def job(self, name: str) -> Object:
        return self.api.get(f"{JOBS.format(self.namespace)}/{name}")

    def status(self, name: str) -> Object:
        return self.job(name).get("status") or {}

    def step(self, name: str, step: int) -> Object:
        """Wait until the status has this step; returns its progress."""

        def found() -> Object | None:
            progress: Object = self.status(name).get("progress") or {}
            return progress if progress.get("step") == step else None

        return await_value(found, what=f"step {step} in the status of {name}", timeout=SECONDS)

    def report(self, pod: Object, body: dict[str, Any], text: str | None = None) -> tuple[int, str]:
        return report(self.port, authority_of(pod), token(self.api, pod) if text is None else text, body)


def train(done: int, **fields: Any) -> dict[str, Any]:
    return {"activity": "train", "stage": "only", "done": done, "total": 1000, "percent": done / 10, "loss": 0.5, **fields}


@contextlib.contextmanager
def installed(cluster: Cluster, log: Path) -> Iterator[World]:
    documents = install(cluster.api)
    apply(cluster.api, RUNTIME)
    with fresh_namespace(cluster) as namespace:
        try:
            yield World(cluster, cluster.api, namespace, log)
        finally:
            cluster.api.delete(f"{path_of(RUNTIME)}/reports")
            uninstall(cluster.api, documents)
