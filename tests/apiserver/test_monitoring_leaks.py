"""A burst of jobs while somebody scrapes all the time, then their deletion: what the operator holds for them comes back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from finetune_operator.kinds import FINE_TUNE_JOB, JOB
from tests.apiserver.operators import Operator
from tests.bench.operator.load import Crowd, runtimes
from tests.bench.operator.measure import REQUESTS, Bench, series
from tests.cluster import Cluster
from tests.cluster.pods import await_value

FIRST = 5
JOBS = 200
MOST_OF_REQUESTS = 300
"""Series of verbs, resources and codes: which there are is chance, how many is not."""


@pytest.fixture
def bench(control_plane: Cluster, tmp_path: Path) -> Iterator[Bench]:
    with ExitStack() as stack:
        stack.enter_context(runtimes(control_plane))
        ours, plain = (stack.enter_context(Crowd.of(control_plane, kind)) for kind in (FINE_TUNE_JOB, JOB))
        yield Bench(control_plane, ours, plain, tmp_path, relist=5)


@contextmanager
def scraping(operator: Operator) -> Iterator[list[set[str]]]:
    """Somebody who scrapes all the time; each scrape is whole."""
    over, scrapes, errors = threading.Event(), list[set[str]](), list[BaseException]()

    def scrape() -> None:
        try:
            while not over.is_set():
                scrapes.append(series(operator.metrics()))
        except BaseException as error:  # noqa: BLE001 - told to the test's own thread
            errors.append(error)

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield scrapes
    finally:
        over.set()
        thread.join(60)
    assert not errors, errors


@pytest.mark.timeout(1800)  # hundreds of jobs on a busy machine
def test_series_and_open_files_come_back_after_jobs_are_deleted(bench: Bench) -> None:
    with bench.operator() as operator:
        bench.fill(held=0, ended=FIRST)
        bench.delete_all(operator)
        before, files = series(operator.metrics()), operator.open_files()
        with scraping(operator) as scrapes:
            bench.fill(held=0, ended=JOBS)
            begun = len(scrapes)
            await_value(lambda: len(scrapes) > begun + 1, what="a scrape of all of them", timeout=120)
        named = max(sum("'finetunejob'" in each for each in scrape) for scrape in scrapes)
        assert named >= JOBS, "the jobs were told while they were there"
        bench.delete_all(operator)
        text = operator.metrics()
        after = series(text)
        assert after == before
        assert text.count(f"\n{REQUESTS}") < MOST_OF_REQUESTS
        assert "job-" not in text
        # Connections to the API server are closed some seconds after their last use.
        await_value(lambda: operator.open_files() <= files + 2, what=f"{files} open files, as before", timeout=120)
        assert operator.stop() == 0
        assert "Traceback" not in operator.text()
