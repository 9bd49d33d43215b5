"""The data of the configurations, and one prepared and undisturbed run for each of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.resume import KILL_SEED
from tests.resume.runs import Prepared, prepare


@pytest.fixture(scope="session")
def seed() -> int:
    return int(os.environ[KILL_SEED])


@pytest.fixture(scope="session")
def kills() -> int:
    return int(os.environ.get("FINETUNE_KILLS", "6"))


@pytest.fixture(scope="session")
def resume_demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.examples.tiny_demo import make_tiny_demo

    return make_tiny_demo(tmp_path_factory.mktemp("resume") / "demo")


@pytest.fixture
def prepared(request: pytest.FixtureRequest, resume_demo: Path, tmp_path: Path) -> Prepared:
    """The configuration that the test is parametrized with, ready to train."""
    return prepare(request.param, resume_demo, tmp_path)
