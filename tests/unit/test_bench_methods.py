"""The table of methods: its rows are manifests that validate takes, its figures are paired and resumable, and the page is that of the results."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetune_api.methods_page import methods_page
from finetune_api.plan import config_hash
from finetune_api.v1alpha1.fine_tune_job import FineTuneJob
from finetune_api.validation import load_problems
from scripts.demo_assets import ROOT
from tests.bench.methods import speed
from tests.bench.methods.page import FRAGMENT, fragment
from tests.bench.methods.pictures import box_width, kept_points, offsets
from tests.bench.methods.results import Results
from tests.bench.methods.settings import BY_NAME, CLASSES, DEFINITIONS, FACTORS, SETTINGS, Setting
from tests.bench.methods.summary import rows
from tests.bench.methods.tasks import manifest

CELLS = [(setting, task) for setting in SETTINGS for task in setting.tasks]


def test_there_are_twenty_rows_and_more_with_names_of_their_own() -> None:
    assert len(SETTINGS) == len(BY_NAME) > 20
    assert all(setting.rate_of is None or setting.rate_of in BY_NAME for setting in SETTINGS)


@pytest.mark.parametrize(("setting", "task"), CELLS, ids=[f"{setting.name}, {task}" for setting, task in CELLS])
def test_every_cell_is_a_manifest_that_validate_takes(setting: Setting, task: str) -> None:
    found = load_problems(manifest(setting, task, seed=1, factor=FACTORS[task][0]))
    assert [problem.message for problem in found if problem.severity == "error"] == []


def test_every_cell_has_a_hash_of_its_own() -> None:
    """The start's is that of lora with a rate that no row has."""
    jobs = [
        FineTuneJob.model_validate(manifest(setting, task, seed=seed, factor=setting.factor or 3))
        for setting, task in CELLS
        for seed in (1, 2)
    ]
    assert len({config_hash(job.spec) for job in jobs}) == len(jobs)


def line(setting: str, seed: int, losses: Any, **more: Any) -> dict[str, Any]:
    own = {
        "estimates": {"loss": [float(np.mean(losses)), 0, 9], "tokenAccuracy": [0.4, 0, 1]},
        "rows": {"nll": list(losses), "tokens": [1] * len(losses)},
    }
    text = {"estimates": {"perplexity": [50.0, 40, 60]}, "rows": {"nll": [4.0, 4.0], "tokens": [1, 1]}}
    costs = {
        "rate": 1e-4, "trained": 10, "parameters": 1000, "bytes": {"trained": 40, "gradients": 40, "optimizer": 80}, "peakMiB": 100,
        "stepSeconds": 1.0, "referenceSeconds": 0.1, "artifactBytes": 1000, "configHash": f"{setting}-{seed}",
    }  # fmt: skip
    return {"setting": setting, "task": DEFINITIONS, "seed": seed, "suites": {"task": own, "domain": text, "other": text}, **costs, **more}


def test_differences_are_paired_by_row_and_means_are_over_seeds() -> None:
    """Words differ far more than rows of the table do: unpaired, this difference would drown."""
    words = np.random.default_rng(1).normal(3.5, 2.0, 60)
    lines = [line("before the task", 1, words + 1)]
    lines += [line("lora", seed, words + 0.01 * seed) for seed in (1, 2, 3)] + [
        line("full", seed, words + 0.2 + 0.01 * seed) for seed in (1, 2)
    ]
    lora, full = rows(lines, DEFINITIONS)
    assert (lora.seeds, full.seeds) == (3, 2)
    assert lora.against is None
    assert full.against is not None and full.against.sure
    assert (full.against.low, full.against.high) == (pytest.approx(0.2), pytest.approx(0.2))
    assert full.spread == pytest.approx(0.01 / 2**0.5)
    assert (full.share, full.passes(0.05)) == (0.01, True)


def test_a_gate_is_missed_by_what_was_forgotten() -> None:
    lost = line("full", 1, [3.0, 4.0])
    lost["suites"] = lost["suites"] | {
        "other": {"estimates": {"perplexity": [60.0, 40, 80]}, "rows": {"nll": [4.1, 4.1], "tokens": [1, 1]}}
    }
    _, full = rows([line("before the task", 1, [4.0, 5.0]), line("lora", 1, [3.0, 4.0]), lost], DEFINITIONS)
    assert full.other_change is not None
    assert full.other_change.value == pytest.approx(np.exp(0.1) - 1)
    assert not full.passes(0.1)
    assert full.passes(0.2)


def test_finished_cells_are_found_by_any_of_their_candidates_and_a_cut_line_is_none(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    Results(path).add(line("lora", 1, [3.0], candidates={"lower": {}, "lora-1": {}}, factor=3))
    with path.open("a") as file:
        file.write('{"setting": "full"')
    found = Results.read(path)
    assert len(found.lines) == 1
    assert found.find("lower") is found.find("lora-1") is found.lines[0]
    assert found.find("other") is None
    assert found.factor("lora", DEFINITIONS) == 3
    assert found.factor("lora", CLASSES) is None


def test_the_page_says_what_the_committed_results_do() -> None:
    text = FRAGMENT.read_text(encoding="utf-8")
    assert fragment(Results.read()) == text, "python -m tests.bench.methods.page"
    assert text.rstrip() in methods_page()
    assert "<!--" not in text
    for picture in ("methods-share.svg", "methods-kept.svg"):
        assert f"pictures/{picture}" in text
        assert (ROOT / "docs/pictures" / picture).read_text(encoding="utf-8").startswith("<svg")


def test_names_in_a_crowded_picture_lie_neither_on_each_other_nor_outside() -> None:
    frame = (0.0, 0.0, 620.0, 440.0)
    at = [(300.0 + 5 * (number % 6), 40.0 + 4 * number) for number in range(30)]
    names = ["full, aggressive + replay (-48%)" if number % 3 else "lora" for number in range(30)]
    boxes = [
        (x + dx - box_width(name) / 2, y + dy - 5, x + dx + box_width(name) / 2, y + dy + 5)
        for (x, y), name, (dx, dy) in zip(at, names, offsets(at, names, frame), strict=True)
    ]
    for one, other in itertools.combinations(boxes, 2):
        assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
    assert all(box[0] >= 0 and box[1] >= 0 and box[2] <= 620 and box[3] <= 440 for box in boxes)


def test_a_point_far_outside_stands_at_the_edge_and_says_where_it_belongs() -> None:
    """prefixTuning's perplexity is thirtyfold: on the same axis the others would be one heap."""
    far = line("prefixTuning", 1, [4.0, 5.0])
    far["suites"] = far["suites"] | {
        "other": {"estimates": {"perplexity": [1500.0, 900, 2000]}, "rows": {"nll": [7.4, 7.4], "tokens": [1, 1]}}
    }
    points = kept_points(rows([line("before the task", 1, [4.0, 5.0]), line("lora", 1, [3.0, 4.0]), far], DEFINITIONS))
    assert [(x, words) for x, *_, words in points] == [(pytest.approx(0.0), "lora"), (0.26, "prefixTuning (+2896%)")]


@pytest.mark.parametrize("name", ["lora", "adalora"])
def test_both_arms_of_the_speed_bench_run(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    tiny = replace(
        speed.CASE, build=lambda: speed.llama(hidden=32, layers=1, heads=2, kv_heads=2, inner=64, vocabulary=8192), warmup=1, steps=2
    )
    monkeypatch.setattr(speed, "CASE", tiny)
    mine, other = speed.measure(speed.OPTIONS[name], 1)
    assert mine[0].seconds > 0
    assert other[0].seconds > 0
    assert mine[0].state > 12 * mine[0].trained, "weights, gradients and two moments"
