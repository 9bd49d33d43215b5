"""What the images install is what the tests ran with: the small locks are parts of the whole one, and none brings torch."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OF_THE_BASE = re.compile(r"torch(?!ao)|triton|nvidia-(?!ml-py)|cuda")


def entries(name: str) -> set[str]:
    """`name==version` and its hashes, an entry a package."""
    text = (ROOT / name).read_text().replace("\\\n", " ")
    found = {re.sub(r"\s+", " ", re.sub(r" ;[^-]*(?= --hash)", "", line)).strip() for line in text.splitlines() if "==" in line}
    assert found, f"{name} names no package"
    return found


@pytest.mark.parametrize("image", ["operator", "trainer", "build", "torch"])
def test_an_images_lock_is_part_of_the_whole_lock(image: str) -> None:
    assert entries(f"requirements-{image}.lock") - entries("requirements.lock") == set()


def test_torch_is_the_base_images() -> None:
    assert [entry for entry in entries("requirements-trainer.lock") if OF_THE_BASE.match(entry)] == []
