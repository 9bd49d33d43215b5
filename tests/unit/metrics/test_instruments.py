"""What the operator counts of itself."""

from __future__ import annotations

import asyncio
import gzip
from pathlib import Path

import aiohttp
import pytest
from prometheus_client import CollectorRegistry, Counter, generate_latest

from finetune_operator.kinds import BY_NAME, FINE_TUNE_JOB, OWN_EVENT
from finetune_operator.metrics import catalogue, reference
from finetune_operator.metrics.endpoint import application
from finetune_operator.metrics.instruments import Instruments, resource_of
from finetune_operator.model import Key

KEY = Key("team-a", "support")


@pytest.mark.parametrize(
    ("path", "resource"),
    [
        (BY_NAME["Job"].path("team-a", "jobs"), "jobs"),
        (BY_NAME["Pod"].path(), "pods"),
        (FINE_TUNE_JOB.path("team-a", "support", "status"), "finetunejobs/status"),
        (OWN_EVENT.path("namespaces", "x"), "events"),
        ("/apis/finetune.dev/v1alpha1", "discovery"),
        ("/apis/authentication.k8s.io/v1/tokenreviews", "tokenreviews"),
        ("/api/v1/namespaces/team-a", "other"),
        ("/apis/somebody/v1/things/name/scale?x=/", "other"),
    ],
)
def test_a_path_is_about_a_resource_and_never_tells_a_name(path: str, resource: str) -> None:
    assert resource_of(path) == resource


class Time:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_lag_of_a_status_counts_from_the_event() -> None:
    time = Time()
    instruments = Instruments(version="1", clock=time)
    instruments.taken(KEY, 2.0)
    time.now += 0.5
    instruments.told(KEY)
    instruments.looked_at(KEY, "done", 0.5)
    instruments.told(KEY)  # by somebody else: no event leads to it
    text = generate_latest(instruments.registry).decode()
    assert "finetune_status_lag_seconds_sum 2.5" in text
    assert "finetune_status_lag_seconds_count 1.0" in text
    assert 'finetune_reconcile_seconds_count{result="done"} 1.0' in text
    assert 'finetune_reconcile_seconds_count{result="error"} 0.0' in text
    assert "_created" not in text


def test_a_watch_is_silent_since_its_last_event_or_the_start() -> None:
    time = Time()
    instruments = Instruments(version="1", clock=time)
    time.now += 7
    assert instruments.silence(FINE_TUNE_JOB) == 7
    instruments.heard(FINE_TUNE_JOB)
    time.now += 2
    assert instruments.silence(FINE_TUNE_JOB) == 2


def test_the_page_tells_every_metric() -> None:
    written = (Path(__file__).parents[3] / "docs/reference/metrics.md").read_text(encoding="utf-8")
    assert written == reference.page(), "run make generate and commit"
    assert all(f"`{metric.name}`" in written for metric in (*catalogue.OPERATOR, *catalogue.FLEET, *catalogue.JOB))


def test_no_name_stands_twice_and_no_job_is_named_by_more_than_gauges() -> None:
    told = (*catalogue.OPERATOR, *catalogue.FLEET, *catalogue.JOB)
    assert len({metric.name for metric in told}) == len(told)
    assert all(metric.type is catalogue.Type.GAUGE for metric in told if "finetunejob" in metric.labels)
    assert all(metric.name.endswith("_total") == (metric.type is catalogue.Type.COUNTER) for metric in told)
    assert all(metric.buckets for metric in told if metric.type is catalogue.Type.HISTOGRAM)


@pytest.mark.parametrize("encoding", ["gzip, deflate", "identity"])
def test_a_scrape_is_answered_with_both_registries(encoding: str) -> None:
    async def scraped() -> tuple[str, str | None, bytes]:
        here, there = CollectorRegistry(), CollectorRegistry()
        Counter("in_a_thread", "x", registry=here)
        Counter("in_the_loop", "x", registry=there)
        runner = aiohttp.web.AppRunner(application(here, lambda: there))
        await runner.setup()
        try:
            site = aiohttp.web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            address, port = runner.addresses[0]
            async with (
                aiohttp.ClientSession(auto_decompress=False) as session,
                session.get(f"http://{address}:{port}/metrics", headers={"Accept-Encoding": encoding}) as answer,
            ):
                return answer.headers["Content-Type"], answer.headers.get("Content-Encoding"), await answer.read()
        finally:
            await runner.cleanup()

    kind, encoded, body = asyncio.run(scraped())
    assert kind.startswith("text/plain; version=0.0.4")
    assert encoded == ("gzip" if "gzip" in encoding else None)
    text = gzip.decompress(body) if encoded else body
    assert b"in_a_thread_total 0.0" in text and b"in_the_loop_total 0.0" in text
