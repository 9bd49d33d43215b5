"""Each failure of a run is named by `finetune run`, and the run passes when its hint was followed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.failures.base import shortfalls
from tests.failures.catalogue import RUN_FAILURES
from tests.failures.ground import Ground, Shared, await_server
from tests.failures.run_failure import RunFailure
from tests.failures.trials import try_run


@pytest.mark.parametrize("failure", RUN_FAILURES, ids=lambda failure: failure.name)
def test_it_is_told_and_mended(failure: RunFailure, running: Shared, tmp_path: Path) -> None:
    await_server(running)
    folder = tmp_path / failure.name
    folder.mkdir()
    assert shortfalls(failure, try_run(failure, Ground(folder, running))) == []
