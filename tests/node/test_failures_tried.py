"""Failures of real pods are told, and end when their hints were followed: some of the set, others each time (tests/conftest.py says which).

`FINETUNE_FAILURES=SEED` takes the same again; a test that is named, or chosen by -k, is run whatever the seed says. `make failures` tries all.
"""

from __future__ import annotations

import pytest

from tests.failures.base import shortfalls
from tests.failures.catalogue import POD_FAILURES
from tests.failures.pod_failure import PodFailure
from tests.failures.site import site
from tests.failures.trials import try_pod
from tests.node.platform import Platform


@pytest.mark.parametrize("failure", POD_FAILURES, ids=lambda failure: failure.name)
def test_it_is_told_and_mended(failure: PodFailure, platform: Platform) -> None:
    with site(platform) as place:
        assert shortfalls(failure, try_pod(failure, place)) == []
