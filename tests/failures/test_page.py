"""The page of the docs is the catalogue, and the catalogue is as wide as it must be."""

from __future__ import annotations

from tests.failures.base import Layer
from tests.failures.catalogue import CATALOGUE, LEAST
from tests.failures.page import PAGE, page


def test_the_page_shows_the_catalogue() -> None:
    assert PAGE.read_text() == page(CATALOGUE), "run: make failures"


def test_every_layer_fails_and_no_name_is_there_twice() -> None:
    assert len(CATALOGUE) >= LEAST
    assert {each.layer for each in CATALOGUE} == {*Layer}
    assert len({each.name for each in CATALOGUE}) == len(CATALOGUE)
