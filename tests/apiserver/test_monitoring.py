"""A real Prometheus scrapes the real operator while jobs run, fail, wait and are retried: every query of the boards and rules has an answer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune_api import constants as c
from finetune_operator.kinds import CLAIM, RUNTIME
from tests import builders
from tests.apiserver.operators import WHOLE, Operator
from tests.apiserver.puppet import Puppet
from tests.apiserver.trouble import runtime_manifest
from tests.apiserver.trouble_job import ROWS, Trial, one_stage, said
from tests.cluster import Cluster
from tests.cluster.api import Object
from tests.cluster.pods import await_value
from tests.monitoring import BOARDS, expressions, recorded
from tests.monitoring.picture import draw
from tests.monitoring.server import Prometheus

PATIENCE = 180.0
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

    def trial(self, name: str, *, nowhere: bool = False) -> Trial:
        manifest = builders.job(builders.stage("task", data=ROWS), model={"uri": MODEL})
        named = {"spec__runtimeRef": {"name": self.runtimes[nowhere]}}
        return Trial(self.api, Puppet(self.api), one_stage(name, self.namespace, manifest, **named))


@pytest.fixture
def platform(control_plane: Cluster, namespace: str) -> Iterator[Platform]:
    with Platform(control_plane, namespace) as made:
        yield made


def report(trial: Trial, pod: Object) -> None:
    """Progress, as it stands in a status after a report."""
    now = pod["status"]["startTime"]
    (stage,) = trial.status["stages"]
    figures = {**stage, "metrics": {"loss": 0.81, "learning_rate": 1e-4, "grad_norm": 1.5}}
    trial.api.patch(f"{trial.path}/status", {"status": {"progress": {**PROGRESS, "updatedAt": now}, "stages": [figures]}})


def scraped(server: Prometheus, query: str) -> None:
    """Until Prometheus has this; counters are counted from what was there before."""
    await_value(lambda: server.asked(query), what=f"a scrape of {query}", timeout=PATIENCE)


def scope(board: Path, namespace: str) -> dict[str, str]:
    """What a user chose in the lists above a board: all namespaces in the fleet's."""
    return {"namespace": ".*" if board.stem == "finetune-fleet" else namespace, "job": "support"}


@pytest.mark.timeout(1200)  # each wait has its own limit
def test_every_query_of_boards_and_rules_has_an_answer(control_plane: Cluster, platform: Platform, tmp_path: Path) -> None:
    namespace = platform.namespace
    flags = ("--namespaces", namespace, "--relist-seconds", "5")
    with (
        Operator.running(control_plane.kubeconfig, tmp_path / "operator.log", *flags, program=WHOLE) as operator,
        Prometheus.running(tmp_path / "prometheus", f"127.0.0.1:{operator.metrics_port()}") as server,
    ):
        support, broken, waits = platform.trial("support"), platform.trial("broken"), platform.trial("waits", nowhere=True)
        waits.submit()
        pod = support.start()
        report(support, pod)
        mine = f'namespace="{namespace}", finetunejob="support"'
        scraped(server, f"finetune_job_progress_ratio{{{mine}}} == 0.41")
        scraped(server, f'finetune_job_info{{{mine}, model="{MODEL}"}}')
        support.puppet.finish(pod, 1, said("Failed", 1, reason="InternalError", stage="task", step=50, message="it broke"))
        doomed = broken.start()
        broken.puppet.finish(doomed, 11, said("Failed", 11, reason="DataInvalid", stage="task", message="row 3 has no text"))
        broken.await_failed(c.Reason.DATA_INVALID)
        again = support.run(2)
        support.succeed(again, resumedFromStep=40, stepsLost=10, evaluation=[LOSS])
        unanswered: dict[tuple[str, str], str] = {}

        def answered() -> bool:
            unanswered.clear()
            for board in BOARDS:
                for title, query in expressions(board):
                    if not server.asked(query, **scope(board, namespace)):
                        unanswered[board.stem, title] = query
            unanswered.update({("rules", name): name for name in recorded() if not server.asked(name)})
            return not unanswered

        try:
            await_value(answered, what="an answer to every query", timeout=PATIENCE, every=2)
        except AssertionError as error:
            raise AssertionError(f"{error}; without an answer: {unanswered}") from error
        for board in BOARDS:
            draw(board, server, tmp_path / f"{board.stem}.png", **scope(board, namespace))
        lost = support.status["usage"]["gpuSecondsLost"]
        scraped(server, f"finetune_job_gpu_seconds_lost{{{mine}}} == {lost}")
        scraped(server, f'finetune_job_evaluation{{{mine}, point="last"}} == 3.3')
        await_value(lambda: server.health() == "up", what="a scrape that went well", timeout=PATIENCE)
        broken.delete()
        await_value(
            lambda: not server.now(f'finetune_job_info{{namespace="{namespace}", finetunejob="broken"}}'), what="its series being gone"
        )
        assert operator.stop() == 0
        assert "Traceback" not in operator.text()
