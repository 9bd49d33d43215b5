"""The closed list of reasons, its page in the docs, and the shape of the source tree."""

from __future__ import annotations

import re

import pytest

from finetune_api.constants import CLUSTER_HINTS, DOCS_FAILURES, PERMANENT_EXIT_CODES, REASONS, ClusterReason, ExitCode, Reason
from tests.unit.api.crdvalidator import ROOT

PAGE = (ROOT / DOCS_FAILURES).read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", PAGE, flags=re.MULTILINE | re.DOTALL))


def test_every_reason_has_an_exit_code_and_a_hint() -> None:
    assert set(REASONS) == set(Reason)
    assert all(info.hint.endswith(".") and len(info.hint) > 30 for info in REASONS.values())


def test_every_exit_code_has_a_reason() -> None:
    assert {info.exit_code for info in REASONS.values()} == set(ExitCode) - {ExitCode.SUCCESS}


def test_the_page_has_a_section_for_each_reason_and_no_other() -> None:
    assert list(SECTIONS) == [reason.value for reason in (*Reason, *ClusterReason)]


def test_what_only_a_cluster_does_has_a_hint() -> None:
    assert set(CLUSTER_HINTS) == set(ClusterReason)
    assert all(hint.endswith(".") and len(hint) > 30 for hint in CLUSTER_HINTS.values())


@pytest.mark.parametrize("reason", ClusterReason)
def test_a_section_on_a_cluster_says_what_it_means_and_what_to_do(reason: ClusterReason) -> None:
    assert all(f"**{words}.**" in SECTIONS[reason.value] for words in ("What it means", "What to do"))


@pytest.mark.parametrize("reason", Reason)
def test_a_section_says_what_it_means_and_what_to_do(reason: Reason) -> None:
    info, text = REASONS[reason], SECTIONS[reason.value]
    assert f"Exit code {info.exit_code.value}." in text
    assert "**What it means.**" in text
    assert "**What to do.**" in text
    ends = info.exit_code in PERMANENT_EXIT_CODES
    assert ("A repetition would end the same way" in text) is ends


@pytest.mark.parametrize("root", ["operator", "trainer_image"])
def test_source_roots_are_no_packages(root: str) -> None:
    """A package named `operator` would shadow the standard library's module."""
    assert (ROOT / root).is_dir()
    assert not (ROOT / root / "__init__.py").exists()
