"""Each section of the page on troubleshooting is what `kubectl describe` shows when the trouble is there: python -m scripts.troubleshooting."""

from __future__ import annotations

import os

import pytest

from tests.apiserver import trouble_page
from tests.apiserver.trouble import Scene
from tests.apiserver.trouble_scenes import TROUBLES, Trouble


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda trouble: trouble.name)
def test_the_page_shows_what_kubectl_shows(request: pytest.FixtureRequest, trouble: Trouble) -> None:
    stage: Scene = request.getfixturevalue("own_stage" if trouble.whole_namespace else "stage")
    trial = trouble.play(stage)
    described = stage.cluster.kubectl("describe", "ftj", trial.name, "-n", stage.namespace)
    seen = trouble_page.neutral(described, namespace=stage.namespace)
    if os.environ.get(trouble_page.REWRITE):
        trouble_page.PAGE.write_text(trouble_page.with_section(trouble_page.read(), trouble.name, seen))
    assert trouble_page.section(trouble_page.read(), trouble.name) == seen


def test_the_page_has_a_section_for_each_trouble() -> None:
    written = trouble_page.read()
    assert [trouble_page.heading(trouble.title, trouble.do) in written for trouble in TROUBLES] == [True] * len(TROUBLES)
