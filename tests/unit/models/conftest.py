"""A third tiny model: a Llama whose projection has weights of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiny import make_tiny_llama


@pytest.fixture(scope="session")
def untied_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llama(tmp_path_factory.mktemp("tiny") / "tiny-llama-untied", tied=False)
