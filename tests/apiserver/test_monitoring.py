"""A real Prometheus scrapes the real operator while jobs run, fail, wait and are retried: every query of the boards and rules has an answer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune_api import constants as c
from tests.apiserver.operators import WHOLE, Operator
from tests.apiserver.trouble_job import said
from tests.cluster import Cluster
from tests.cluster.pods import await_value
from tests.monitoring import BOARDS, expressions, recorded
from tests.monitoring.picture import draw
from tests.monitoring.play import LOSS, MODEL, Platform, report, scope
from tests.monitoring.server import Prometheus

PATIENCE = 180.0


@pytest.fixture
def platform(control_plane: Cluster, namespace: str) -> Iterator[Platform]:
    with Platform(control_plane, namespace) as made:
        yield made


def scraped(server: Prometheus, query: str) -> None:
    """Until Prometheus has this; counters are counted from what was there before."""
    await_value(lambda: server.asked(query), what=f"a scrape of {query}", timeout=PATIENCE)


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
        at = pod["status"]["startTime"]
        report(support, at, warnings=[{"reason": "LossFlat", "message": "the loss has not fallen", "since": at}])
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
