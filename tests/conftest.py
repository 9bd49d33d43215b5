"""What every test sees: the tiny models, made once for all workers, and one thread, because the machine has two cores and tests share them."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.failures.choice import MOST, POD_SEED
from tests.resume import KILL_SEED

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["NO_COLOR"] = "1"

for seed in (KILL_SEED, POD_SEED):
    os.environ.setdefault(seed, str(secrets.randbelow(10**6)))  # here, so that every worker process inherits the same

# Never a timed test: an example may be held up by whatever else the machine does.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")


def pytest_report_header() -> list[str]:
    return [
        f"exact resume: kills at random times, {KILL_SEED}={os.environ[KILL_SEED]}",
        f"failures of real pods: at most {MOST} of the set, {POD_SEED}={os.environ[POD_SEED]}",
    ]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `--dist loadgroup`, give the node tier to one worker, from the start, and each other test to whoever is free.

    xdist 3.8 tells groups by writing them into the tests' ids, in a place where pytest 9.2 no longer looks: its own marks do nothing.
    """
    if config.getvalue("dist") != "loadgroup":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class Tiers(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "tests/node" if nodeid.startswith("tests/node/") else nodeid

    return Tiers(config, log)


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a LlamaForCausalLM of 2 layers × 64. Read only."""
    from tests.tiny import make_tiny_llama

    return make_tiny_llama(tmp_path_factory.mktemp("tiny") / "tiny-llama")


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a BertForMaskedLM of 2 layers × 64. Read only."""
    from tests.tiny import make_tiny_bert

    return make_tiny_bert(tmp_path_factory.mktemp("tiny") / "tiny-bert")
