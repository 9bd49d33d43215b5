"""What runs are tried on: the tiny models, the hub's stand-in, and a server of trainer processes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.failures.ground import Shared, shared


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    with shared(tmp_path_factory.mktemp("failures")) as made:
        yield made
