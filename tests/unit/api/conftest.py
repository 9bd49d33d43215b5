"""The real validator, started once for a worker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.api.crdvalidator import RUNTIME_CRD, CrdValidator


@pytest.fixture(scope="session")
def api_server() -> Iterator[CrdValidator]:
    validator = CrdValidator()
    yield validator
    validator.close()


@pytest.fixture(scope="session")
def runtime_server() -> Iterator[CrdValidator]:
    """The same for ClusterFineTuneRuntimes."""
    validator = CrdValidator(RUNTIME_CRD)
    yield validator
    validator.close()
