"""Jobs for a Prometheus to look at: pods on nodes of kwok, and what their trainers would have reported."""

from __future__ import annotations

from pathlib import Path

from finetune_operator.kinds import CLAIM, RUNTIME
from tests import builders
from tests.apiserver.puppet import Puppet
from tests.apiserver.trouble import runtime_manifest
from tests.apiserver.trouble_job import ROWS, Trial, one_stage
from tests.cluster import Cluster
from tests.cluster.api import Object
from tests.cluster.pods import await_value

MODEL = "hf://owner/modèle-日本-🦙"
LOSS = {"suite": "in-domain", "metric": "loss", "baseline": 5.3, "stages": [{"stage": "task", "value": 3.3}], "gate": "Passed"}
PROGRESS = {
    "percent": 41,
    "step": 410,
    "totalSteps": 1000,
    "epoch": 1.2,
    "loss": 0.81,
    "tokensPerSecond": 5120.0,
    "gpuMemoryBytes": 42_949_672_960,
    "gpuMemoryPeakBytes": 51_539_607_552,
    "gpuMemoryTotalBytes": 85_899_345_920,
    "gpuUtilizationPercent": 97,
    "etaSeconds": 3600,
    "eta": "1h0m",
}


class Platform:
    """A namespace with storage, and two runtimes of one GPU a pod: nodes of the one are there, of the other not."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.api = cluster.api
        self.namespace = namespace
        self.runtimes = [f"{namespace}-here", f"{namespace}-nowhere"]

    def __enter__(self) -> Platform:
        for name, selector in zip(self.runtimes, ({"type": "kwok"}, {"type": "nowhere"}), strict=True):
            self.api.post(RUNTIME.path(), runtime_manifest(name, gpus=1, nodeSelector=selector))
        wanted = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": "shared"}
        path = CLAIM.path(self.namespace)
        self.api.post(path, {"metadata": {"name": "runs"}, "spec": wanted})
        await_value(lambda: self.api.get(f"{path}/runs")["status"].get("phase") == "Bound", what="the claim being bound")
        return self

    def __exit__(self, *_: object) -> None:
        for name in self.runtimes:
            self.api.delete(RUNTIME.path(None, name))

    def trial(self, name: str, *, nowhere: bool = False, model: str = MODEL) -> Trial:
        manifest = builders.job(builders.stage("task", data=ROWS), model={"uri": model})
        named = {"spec__runtimeRef": {"name": self.runtimes[nowhere]}}
        return Trial(self.api, Puppet(self.api), one_stage(name, self.namespace, manifest, **named))


def report(trial: Trial, at: str, progress: Object = PROGRESS, *, warnings: list[Object] | None = None, **metrics: float) -> None:
    """Progress, as it stands in a status after a report. at: when it was heard. metrics: of the stage."""
    (stage,) = trial.status["stages"]
    figures = {**stage, "metrics": {"loss": progress["loss"], "learning_rate": 1e-4, "grad_norm": 1.5, **metrics}}
    *ended, attempt = trial.status["attempts"]
    attempts = [*ended, {**attempt, "stage": stage["name"], "step": progress["step"]}]
    told = {"progress": {**progress, "updatedAt": at}, "attempts": attempts, "stages": [figures], "warnings": warnings or []}
    trial.api.patch(f"{trial.path}/status", {"status": told})


def scope(board: Path, namespace: str) -> dict[str, str]:
    """What a user chose in the lists above a board: all namespaces in the fleet's."""
    return {"namespace": ".*" if board.stem == "finetune-fleet" else namespace, "job": "support"}
