"""A pod's own /metrics: what it tells, that a real trainer answers while it trains, and that nobody who asks can hold it up."""

from __future__ import annotations

import http.client
import math
import socket
import subprocess
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from finetune_api import telemetry
from finetune_api.constants import METRICS_PORT, NoticeReason
from finetune_api.wire import Activity, Notice
from finetune_trainer import progress
from finetune_trainer.pod_metrics import PodMetrics, Server
from finetune_trainer.progress import AllReporters, LogReporter
from finetune_trainer.pulse import Pulse
from tests.cluster import debian
from tests.cluster.pods import await_value
from tests.unit.pod.test_process import Pod

GPU = {"gpu_memory_bytes": 40, "gpu_memory_peak_bytes": 48, "gpu_memory_total_bytes": 80, "gpu_utilization_percent": 97}
Samples = dict[str, float]


def samples(text: str) -> Samples:
    """Value by `name{values of its labels}`."""
    found = [each for family in text_string_to_metric_families(text) for each in family.samples]
    return {f"{each.name}{{{','.join(each.labels.values())}}}": each.value for each in found}


def told(metrics: PodMetrics) -> Samples:
    registry = CollectorRegistry()
    registry.register(metrics)
    return samples(generate_latest(registry).decode())


def named() -> set[str]:
    return {metric.name for metric in telemetry.POD}


def test_all_of_it() -> None:
    clock = iter([100.0, 107.0])
    metrics = PodMetrics(gpu=lambda: GPU, pulse=Pulse(lambda: next(clock)))
    notice = Notice(reason=NoticeReason.LOSS_FLAT, message="flat")
    metrics.report(Activity.TRAIN, stage="domain", done=40, total=120, metrics={"eval_loss": 1.5})
    metrics.report(
        Activity.TRAIN,
        stage="domain",
        done=41,
        total=120,
        epoch=0.5,
        loss=2.25,
        learning_rate=1e-4,
        grad_norm=0.5,
        tokens_per_second=5120.0,
        percent=12.5,
        eta_seconds=60.0,
        notices=[notice],
    )
    said = told(metrics)
    assert said == {
        "finetune_trainer_silence_seconds{}": 7.0,
        "finetune_trainer_activity{train,domain,}": 1.0,
        "finetune_trainer_units_done{steps}": 41.0,
        "finetune_trainer_units{steps}": 120.0,
        "finetune_trainer_noticed{LossFlat}": 1.0,
        "finetune_trainer_progress_ratio{}": 0.125,
        "finetune_trainer_eta_seconds{}": 60.0,
        "finetune_trainer_step{}": 41.0,
        "finetune_trainer_steps{}": 120.0,
        "finetune_trainer_epoch{}": 0.5,
        "finetune_trainer_loss{}": 2.25,
        "finetune_trainer_learning_rate{}": 1e-4,
        "finetune_trainer_gradient_norm{}": 0.5,
        "finetune_trainer_tokens_per_second{}": 5120.0,
        "finetune_trainer_validation{eval_loss,domain}": 1.5,
        "finetune_trainer_gpu_memory_bytes{}": 40.0,
        "finetune_trainer_gpu_memory_peak_bytes{}": 48.0,
        "finetune_trainer_gpu_memory_total_bytes{}": 80.0,
        "finetune_trainer_gpu_utilization_ratio{}": 0.97,
    }
    assert {name.partition("{")[0] for name in said} == named()


def test_what_belongs_to_another_stage_or_is_over_is_not_told() -> None:
    metrics = PodMetrics(gpu=dict)
    metrics.report(Activity.TRAIN, stage="domain", done=1, total=2, loss=2.0, metrics={"eval_loss": 1.5})
    metrics.report(Activity.TRAIN, stage="task", done=1, total=9, loss=math.nan)
    metrics.report(Activity.EVALUATE, suite="in-domain", done=3, total=4, unit="rows", percent=50.0)
    said = told(metrics)
    assert said["finetune_trainer_activity{evaluate,,in-domain}"] == 1
    assert said["finetune_trainer_units_done{rows}"] == 3 and said["finetune_trainer_steps{}"] == 9
    assert math.isnan(said["finetune_trainer_loss{}"]), "whoever looks at it should see it"
    assert not [name for name in said if "validation" in name or "gpu" in name or "noticed" in name]


def test_before_the_first_report_there_is_a_pulse_alone() -> None:
    assert set(told(PodMetrics())) == {"finetune_trainer_silence_seconds{}"}


@pytest.fixture
def port() -> int:
    """Served by a thread, as in a pod."""
    metrics = PodMetrics()
    metrics.report(Activity.PREPARE, stage="a", done=1, total=2, unit="rows")
    server = Server(0, metrics)
    threading.Thread(target=server.run, daemon=True).start()
    return int(server.server_address[1])


def test_one_who_says_nothing_keeps_nobody_out_for_long_and_other_paths_are_none(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as silent:
        silent.sendall(b"GET /metr")
        assert "finetune_trainer_units_done" in get(port)
    with pytest.raises(urllib.error.HTTPError) as caught:
        get(port, "/etc/passwd")
    assert caught.value.code == 404
    caught.value.close()
    for nonsense in (b"\x16\x03\x01" * 100, b"POST /metrics HTTP/1.1\r\n\r\n", b"GET " + b"/" * 100_000):
        with socket.create_connection(("127.0.0.1", port)) as other:
            other.sendall(nonsense)
    assert "finetune_trainer_units_done" in get(port, "/metrics?name[]=up")


def get(port: int, path: str = "/metrics") -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        return str(answer.read().decode())


@pytest.mark.parametrize("given", ["a-port", "-1", "70000"])
def test_a_port_that_is_none_costs_a_line_of_the_log(given: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv(METRICS_PORT, given)
    reporter = progress.from_environment()
    assert isinstance(reporter, AllReporters)
    reporter.report(Activity.LOAD)
    assert "nothing is told at /metrics (the training goes on)" in caplog.text


def test_a_port_that_is_taken_costs_a_line_of_the_log(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("", 0)) as taken:
        monkeypatch.setenv(METRICS_PORT, str(taken.getsockname()[1]))
        progress.from_environment().report(Activity.LOAD)
    assert "nothing is told at /metrics (the training goes on)" in caplog.text


def test_without_a_port_the_log_alone_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(METRICS_PORT, raising=False)
    reporter = progress.from_environment()
    assert isinstance(reporter, AllReporters)
    assert [type(each) for each in reporter.reporters] == [LogReporter]


def test_a_real_trainer_is_scraped_while_it_trains(tmp_path: Path, tiny_llama: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    pod = Pod(tmp_path, f"file://{tiny_llama}", steps=100_000, environment={METRICS_PORT: str(port)})
    assert pod.container("prepare", pod.config("prepare"))[0] == 0, pod.stderr()
    process = pod.start("train", pod.config("train"))
    texts: list[str] = []

    def trains() -> bool:
        assert process.poll() is None, pod.stderr()
        try:
            texts.append(get(port))
        except (OSError, http.client.HTTPException):
            return False
        said = samples(texts[-1])  # now and then it saves
        return said.get("finetune_trainer_step{}", 0) > 1 and "finetune_trainer_activity{train,domain,}" in said

    try:
        await_value(trains, what="a scrape of its steps", timeout=300, every=0.2)
    finally:
        process.kill()
        process.wait()
    said = samples(texts[-1])
    assert said["finetune_trainer_steps{}"] == 100_000
    assert 0 < said["finetune_trainer_loss{}"] < 100 and said["finetune_trainer_tokens_per_second{}"] > 0
    assert said["process_resident_memory_bytes{}"] > 10e6
    assert not [name for name in said if "gpu" in name]
    assert {name.partition("{")[0] for name in said if name.startswith("finetune")} <= named()
    checked = subprocess.run(
        [str(debian.resolve("promtool")), "check", "metrics"], input=texts[-1], capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
