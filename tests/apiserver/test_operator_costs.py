"""What the operator writes, in small: `python -m tests.bench.operator` measures the same with more jobs, and memory and time beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from finetune_operator.kinds import FINE_TUNE_JOB, JOB
from tests.bench.operator.load import Crowd, runtimes
from tests.bench.operator.measure import Bench
from tests.cluster import Cluster

JOBS = 20


@pytest.fixture
def bench(control_plane: Cluster, tmp_path: Path) -> Iterator[Bench]:
    with ExitStack() as stack:
        stack.enter_context(runtimes(control_plane))
        ours, plain = (stack.enter_context(Crowd.of(control_plane, kind)) for kind in (FINE_TUNE_JOB, JOB))
        yield Bench(control_plane, ours, plain, tmp_path, relist=5)


def test_a_life_costs_three_writes_at_most_and_what_stands_costs_none(bench: Bench) -> None:
    with bench.operator() as operator:
        raced = bench.race(rounds=1, batch=JOBS)
        assert raced.by_operator["create jobs"] == JOBS
        assert set(raced.by_operator) == {"create jobs", "update finetunejobs/status"}
        assert raced.by_operator.total() <= 3 * JOBS, raced.by_operator
        bench.fill(held=5, ended=0)
        assert bench.quiet() == Counter()
        assert operator.stop() == 0
    assert bench.restart().unchanged == Counter()
