"""The seed of a test run, the data of the configurations, and one prepared and undisturbed run for each of them."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import pytest

from tests.resume.runs import Prepared, prepare

SEED = "FINETUNE_KILL_SEED"
os.environ.setdefault(SEED, str(secrets.randbelow(10**6)))  # here, so that every worker process inherits the same


def pytest_report_header() -> str:
    return f"exact resume: kills at random times, {SEED}={os.environ[SEED]}"


@pytest.fixture(scope="session")
def seed() -> int:
    return int(os.environ[SEED])


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
