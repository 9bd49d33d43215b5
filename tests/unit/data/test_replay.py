"""Replay: rows of what has to be kept have the share of tokens that was asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

NEW = [{"text": f"cat number {n} sat on mat {n * 7} " * (1 + n % 5)} for n in range(300)]
OLD = [{"text": f"the old dog {n}" * (1 + n % 3)} for n in range(200)]


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
def test_replay_has_the_share_of_tokens_that_was_asked_for(share: float, job: Any) -> None:
    sources = [
        {"uri": job.file("new.jsonl", NEW), "weight": 1 - share},
        {"uri": job.file("old.jsonl", OLD), "weight": share, "replay": True},
    ]
    prepared = job.prepare(sources)
    stage = prepared.stages["a"]
    lengths, origin = stage.train.lengths[stage.selection], stage.train.sources[stage.selection]
    assert lengths[origin == 1].sum() / lengths.sum() == pytest.approx(share, abs=0.01)
    assert prepared.report.stages[0].shares == pytest.approx([1 - share, share], abs=0.01)
    assert not [warning for warning in prepared.report.warnings if "instead of" in warning]


def test_of_classification_it_is_a_share_of_rows(job: Any) -> None:
    rows = [[{"text": text["text"], "label": "ab"[n % 2]} for n, text in enumerate(source)] for source in (NEW, OLD)]
    sources = [{"uri": job.file(f"{n}.jsonl", rows[n]), "weight": weight, "replay": n == 1} for n, weight in ((0, 0.8), (1, 0.2))]
    stage = job.prepare(sources, "classification").stages["a"]
    assert np.mean(stage.train.sources[stage.selection] == 1) == pytest.approx(0.2, abs=0.01)


def test_a_share_that_rows_cannot_make_up_is_warned_of(job: Any) -> None:
    sources = [{"uri": job.file("new.jsonl", NEW[:20]), "weight": 0.9}, {"uri": job.file("old.jsonl", [{"text": "word " * 300}]), "weight": 0.1, "replay": True}]  # fmt: skip
    assert any("instead of 10.0%: its rows are too few or too long for it" in text for text in job.prepare(sources).report.warnings)
