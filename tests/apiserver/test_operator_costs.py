"""What the operator writes, in small: `python -m tests.bench.operator` measures the same with more jobs, and memory and time beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from finetune_operator.case import START_SECONDS
from finetune_operator.kinds import FINE_TUNE_JOB, JOB
from tests.bench.operator.load import Crowd, runtimes
from tests.bench.operator.measure import Bench, Race
from tests.cluster import Cluster

BATCHES = (20, 10, 5, 5, 5)


@pytest.fixture
def bench(control_plane: Cluster, tmp_path: Path) -> Iterator[Bench]:
    with ExitStack() as stack:
        stack.enter_context(runtimes(control_plane))
        ours, plain = (stack.enter_context(Crowd.of(control_plane, kind)) for kind in (FINE_TUNE_JOB, JOB))
        yield Bench(control_plane, ours, plain, tmp_path, relist=5)


def in_time(bench: Bench) -> Race:
    """A race in which no job waited: one without a running pod for 5 seconds is told as such, by a write more."""
    for batch in BATCHES:
        before = set(bench.ours.ended)
        raced = bench.race(rounds=1, batch=batch)
        if all(bench.ours.ended[uid] - bench.ours.posted[uid] < START_SECONDS for uid in bench.ours.ended.keys() - before):
            return raced
    pytest.fail(f"in each batch, jobs waited for more than {START_SECONDS} s on this machine")


def test_a_life_costs_three_writes_at_most_and_what_stands_costs_none(bench: Bench) -> None:
    with bench.operator() as operator:
        raced = in_time(bench)
        assert raced.by_operator["create jobs"] == raced.jobs
        assert set(raced.by_operator) == {"create jobs", "update finetunejobs/status"}
        assert raced.by_operator.total() <= 3 * raced.jobs, raced.by_operator
        bench.fill(held=5, ended=0)
        assert bench.quiet() == Counter()
        assert operator.stop() == 0
    assert bench.restart().unchanged == Counter()
