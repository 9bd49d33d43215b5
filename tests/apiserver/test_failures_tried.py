"""The cluster's part of the failure set (tests/failures): a status tells what is held against a job, and the job passes when somebody did what that asks for."""

from __future__ import annotations

import pytest

from tests.apiserver.trouble import Scene
from tests.failures.base import shortfalls
from tests.failures.cluster_failures import CLUSTER_FAILURES, ClusterFailure
from tests.failures.trials import try_cluster


@pytest.mark.parametrize("failure", CLUSTER_FAILURES, ids=lambda failure: failure.name)
def test_it_is_told_and_mended(failure: ClusterFailure, stage: Scene) -> None:
    assert shortfalls(failure, try_cluster(failure, stage)) == []
