"""The tiny models of the five architectures, made when a test first asks for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from finetune_api.v1alpha1.support import Family
from tests.tiny import make_tiny_llama
from tests.unit.methods.families import make_family


@pytest.fixture(scope="session")
def family(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Family], Path]:
    """The folder of a tiny model of an architecture. Read only."""
    made: dict[Family, Path] = {}

    def folder(wanted: Family) -> Path:
        if wanted not in made:
            made[wanted] = make_family(tmp_path_factory.mktemp("families") / str(wanted), wanted)
        return made[wanted]

    return folder


@pytest.fixture(scope="session")
def llama(family: Callable[[Family], Path]) -> Path:
    return family(Family.LLAMA)


@pytest.fixture(scope="session")
def untied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As the tiny LLaMA, with a head of its own."""
    return make_tiny_llama(tmp_path_factory.mktemp("untied") / "llama", tied=False)
