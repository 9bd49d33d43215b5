"""The benches' own arms run: nothing else would show that a change of the trainer left them behind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from tests.bench import arms
from tests.bench.throughput import CASES


@pytest.mark.parametrize("arm", [arms.ours, partial(arms.ours, packed=True), arms.bare], ids=["ours", "ours packed", "bare"])
def test_an_arm_runs(arm: Callable[[arms.Case], arms.Measured]) -> None:
    measured = arm(replace(CASES["2x64"], warmup=1, steps=2))
    assert measured.tokens > 0


@pytest.mark.parametrize("script", ["plain_trainer.py", "trl_script.py"])
def test_a_script_beside_the_package_named_operator_is_run_without_its_folder(script: str) -> None:
    """The standard library has an `operator` too, which the script's folder would hide."""
    folder = Path(arms.__file__).parent
    assert (folder / "operator").is_dir() and (folder / script).is_file()
    calls = [path.name for path in folder.glob("*.py") if script in path.read_text() and '[sys.executable, "-P"' in path.read_text()]
    assert len(calls) == 1
