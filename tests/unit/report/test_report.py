"""The report of a finished, a failed and an unfinished run: what stands in it, that it needs nothing else, and that nothing typed breaks out."""

from __future__ import annotations

import dataclasses
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from finetune_api.constants import ExitCode, Reason
from finetune_api.v1alpha1.evaluation import Metric
from finetune_api.v1alpha1.status import SeedScore, SeedsStatus
from finetune_api.wire import RunResult
from finetune_trainer.checkpoint import lineage
from finetune_trainer.checkpoint.epochs import CURVE
from finetune_trainer.checkpoint.files import FileLayer
from finetune_trainer.checkpoint.journal import Event, Journal
from finetune_trainer.data.report import Histogram
from finetune_trainer.errors import TrainerError
from finetune_trainer.evaluation.results import BASE, PointResult, point_path, read, write
from finetune_trainer.evaluation.spread import ArmsResult, Comparison, Length, Spread
from finetune_trainer.report.__main__ import main
from finetune_trainer.report.html import findings, render, write_report
from finetune_trainer.report.plots import MOST_POINTS, _place, curve_picture, lengths_picture
from finetune_trainer.report.view import Curve, gather
from finetune_trainer.run_folder import RunFolder
from tests.unit.report.sample_run import MARKUP, make_run


class Page(HTMLParser):
    """What a browser would make of the page: its tags, their attributes, its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def written(run: RunFolder) -> str:
    return write_report(run).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(written: str) -> Page:
    return Page(written)


@pytest.mark.parametrize(
    "words",
    [
        "animals-and-plants",
        "Succeeded",
        "All 2 gates passed.",
        "▲ better",
        "passed over, damaged: epochs/0001/stages/0-domain/checkpoint-00000060: adapter.safetensors is truncated",
        "step 40 of domain",
        "any of several small aquatic mammals having a dense soft coat",
        "any of various aquatic mammals with a thick fur coat",
        "exactMatch: greedy, one beam, no penalties, at most 64 tokens",
        "not applicable: no stage has trained a classification head",
        "suite in-domain: 2 rows (0.7 %) also stand in the training data of stage domain",
        "nats a token, lower is better",
        "learning rate",
        "trainedParameters 4,884,480",
        "frozen: 28 of 28 matrices, by their scores, after steps 21 to 60",
        "trainableWeights float32, autocast off",
        "the whole prompt",
        "12fd25f77366fa6b3b4b768ec3050bf629380bac",
        "peft",
    ],
)
def test_it_says(page: Page, words: str) -> None:
    assert words.lower() in page.text.lower()


def test_what_was_not_measured_is_not_told(page: Page) -> None:
    assert "argmax_agreement 0.99" in page.text
    assert "None" not in page.text


def test_it_needs_nothing_else(page: Page) -> None:
    assert not page.named("script")
    assert not page.named("img")
    links = [value for _, attributes in page.tags for name, value in attributes.items() if name in ("src", "href", "xlink:href")]
    assert links
    assert all(str(link).startswith(("#", "data:,")) for link in links)
    assert "@import" not in page.text
    assert not re.search(r"url\((?!#)", page.text)


def test_what_users_type_is_shown_and_not_obeyed(page: Page) -> None:
    assert f"Define: {MARKUP}" in page.text
    assert "49" not in re.sub(r"[0-9]{3,}|\d\.\d+", "", MARKUP)  # the template in it would have become 49
    assert "{{ 7 * 7 }}" in page.text


def test_every_picture_says_what_it_is_and_every_id_stands_once(page: Page) -> None:
    pictures = page.named("svg")
    assert len(pictures) == 2 * 3 + 6  # the evaluation and two curves in two layouts, and six small pictures of the data
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for picture in pictures:
        assert picture["role"] == "img"
        assert set(str(picture["aria-labelledby"]).split()) <= set(ids)


def test_the_same_run_gives_the_same_page(run: RunFolder, written: str) -> None:
    assert render(gather(run)) == written


def test_a_failed_run_shows_its_reason_and_hint(run: RunFolder) -> None:
    failed = RunResult(
        outcome="Failed",
        exit_code=ExitCode.DIVERGED,
        reason=Reason.LOSS_DIVERGED,
        message="the loss of step 12 is NaN",
        hint="Lower the rate.",
    )
    text = Page(render(gather(run, result=failed))).text
    assert "LossDiverged: the loss of step 12 is NaN" in text
    assert "Lower the rate." in text
    assert "Succeeded" not in text


def test_an_unfinished_run_shows_what_is_there(tmp_path: Path) -> None:
    text = Page(write_report(make_run(tmp_path, finished=False)).read_text(encoding="utf-8")).text
    assert "Not finished" in text
    assert "Stage domain" in text
    assert "Gates" not in text


def test_a_run_without_a_baseline_has_no_summary_but_its_table(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    folder.prepare_report.unlink()
    point_path(folder.evaluation, BASE).unlink()
    view = gather(folder)
    assert findings(view.points) == []
    assert "after task" in Page(render(view)).text


def test_a_change_counts_only_where_the_paired_interval_leaves_out_zero(run: RunFolder) -> None:
    base, task = (read(point_path(run.evaluation, name), PointResult) for name in ("base", "1-task"))
    assert base is not None
    assert task is not None
    sure = {(found.suite, found.metric): found.verdict for found in findings([base, task])}
    assert sure[("in-domain", "loss")] == "better"
    suite = task.suites[0]
    across = {metric: change.model_copy(update={"low": -1.0, "high": 1.0}) for metric, change in suite.changes.items()}
    unsure = task.model_copy(update={"suites": [suite.model_copy(update={"changes": across}), *task.suites[1:]]})
    assert findings([base, unsure])[0].verdict == "unclear"
    swapped = [point.model_copy(update={"suites": [point.suites[0]]}) for point in (task, base)]
    worse = swapped[1].suites[0].model_copy(update={"changes": suite.changes})
    assert (
        findings([swapped[0].model_copy(update={"point": "base"}), swapped[1].model_copy(update={"suites": [worse], "point": "1-task"})])[
            0
        ].verdict
        == "worse"
    )


def test_a_failed_gate_is_the_first_thing_that_is_said(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    folder.prepare_report.unlink()
    path = point_path(folder.evaluation, "1-task")
    task = read(path, PointResult)
    assert task is not None
    missed = task.gates[0].model_copy(update={"passed": False, "message": "in-domain loss after task: missed"})
    write(path, task.model_copy(update={"gates": [missed, *task.gates[1:]]}))
    text = Page(render(gather(folder))).text
    assert "Gate failed in-domain loss after task: missed" in text
    assert "Succeeded" not in text


def test_curves_follow_the_line_of_descent(tmp_path: Path) -> None:
    """An epoch that just began has no log of its own yet: its parent's is shown. A torn last line is passed over."""
    folder = make_run(tmp_path)
    path = lineage.epoch_folder(folder.epochs, 2) / lineage.STAGES / "0-domain" / CURVE
    with path.open("a") as file:
        file.write('{"step": 64, "lo')
    curves = gather(folder).curves
    assert [curve.stage for curve in curves] == ["domain", "task"]
    assert [step for step, _ in curves[0].loss] == list(range(1, 64))
    assert [step for step, _ in curves[0].validation_loss] == [20, 40, 60]
    assert (list(curves[0].resumed), list(curves[1].resumed)) == ([40], [])


def test_what_a_stage_noticed_stands_below_its_curve(tmp_path: Path) -> None:
    """The report judges the recorded curve as the trainer did while it was recorded."""
    folder = make_run(tmp_path)
    path = lineage.epoch_folder(folder.epochs, 2) / lineage.STAGES / "1-task" / CURVE
    rows = [{"step": step, "epoch": step / 100, "loss": 2.5 - 0.01 * min(step, 100) + 0.01 * max(0, step - 150)} for step in range(1, 301)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    domain, task = gather(folder).curves
    assert domain.noticed == []
    (only,) = task.noticed
    assert only.until is None and 160 < only.since < 300
    page = write_report(folder).read_text()
    assert f"from step {only.since}</span> stage task: the training loss has risen from 1.5" in page
    assert "Lower training.learningRate to 0.0001 (a third; it is 0.0003)." in page


def test_waits_for_data_and_silences_are_told_as_they_were_recorded(tmp_path: Path) -> None:
    """No loss shows them. A process that went on began to look anew, and the last wait lasted to the end."""
    folder = make_run(tmp_path)
    path = lineage.epoch_folder(folder.epochs, 2) / lineage.STAGES / "1-task" / CURVE
    with path.open("a") as file:
        for step, text in ((50, "stage task: <waited> for 60%"), (70, None), (80, "waited for 40%"), (90, "waited for 50%")):
            file.write(json.dumps({"step": step, "dataBound": text}) + "\n")
    journal = Journal(folder.journal, FileLayer(), clock=iter([1_790_000_500.0, 1_790_000_600.0, 1_790_000_700.0]).__next__)
    journal.append(Event.SILENCE, epoch=0, message="save task, after step 40: nothing advanced for 20 min")
    journal.append(Event.END, epoch=2, reason="Stalled", message="load: nothing has advanced for 30 min")
    journal.append(Event.END, epoch=2, reason="OutOfMemory", message="it is full")
    view = gather(folder)
    assert [(each.since, each.until, each.message) for each in view.curves[1].noticed] == [
        (50, 70, "stage task: <waited> for 60%"),
        (80, 90, "waited for 40%"),
        (90, None, "waited for 50%"),
    ]
    page = write_report(folder).read_text()
    assert "from step 50 to 70</span> stage task: &lt;waited&gt; for 60%" in page
    assert "until 2026-09-21 14:21:40 UTC</span> save task, after step 40: nothing advanced for 20 min" in page
    assert "load: nothing has advanced for 30 min" in page and "it is full" not in page


def test_a_long_curve_is_thinned_to_means() -> None:
    long = [(float(step), 1.0) for step in range(1, 100_001)]
    drawn = curve_picture(0, Curve("domain", "causalLanguageModeling", long, long, [], []))
    assert len(drawn.svgs[0]) < 60_000
    assert MOST_POINTS < 100_000


@pytest.mark.parametrize(
    ("length", "place"),
    [(1, -0.5), (8, 0.5), (12, 1.0), (32, None), (0, None)],
    ids=["first edge", "an edge between bars", "inside a bar", "beyond the last edge", "before the first"],
)
def test_a_length_finds_its_place_among_bars(length: int, place: float | None) -> None:
    assert _place(length, [1, 8, 16, 32]) == place


def test_a_picture_of_words_that_no_font_has_and_of_one_row() -> None:
    svg = lengths_picture(0, "日本語 <b>", Histogram(edges=[4, 8], counts=[1]), 8).svgs[0]
    assert "日本語 &lt;b&gt;" in svg
    assert "<b>" not in svg


def test_the_command_prints_the_path_and_explains_a_wrong_folder(
    run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(run.root)]) == 0
    assert capsys.readouterr().out.strip() == str(run.artifacts / "report.html")
    assert main([str(tmp_path)]) == int(ExitCode.BAD_CONFIG)
    assert f"{tmp_path}: this folder holds no run that can be reported on: it has no run.json" in capsys.readouterr().err
    assert main([]) == 2


@pytest.mark.parametrize("content", ["", "{", "[]", '{"job": "x"}', '{"job": "x", "configHash": "y", "threads": 1, "spec": {"stages": 1}}'])
def test_a_damaged_identity_is_no_traceback(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(TrainerError, match="holds no run that can be reported on"):
        gather(RunFolder(tmp_path))


def arms_result(seeds: int) -> ArmsResult:
    """What the sample run would have come to with so many seeds and its task alone beside it."""
    reason = "seed 2 has the lowest eval_loss on the validation rows of stage task: 3.2; the 3 seeds have 3.2 to 3.4"
    scores = [SeedScore(seed=number, value=3.2) for number in range(1, seeds + 1)]
    spread = {"suite": "in-domain", "metric": Metric.LOSS, "stage": "task", "mean": 3.31, "deviation": 0.05, "low": 3.2, "high": 3.4}
    compared = {"suite": "in-domain", "metric": Metric.LOSS, "stage": "task", "gain": -0.19, "low": -0.3, "high": -0.1}
    return ArmsResult(
        published="seed-2",
        seeds=SeedsStatus(published=2, metric="eval_loss", scores=scores, reason=reason) if seeds > 1 else None,
        spreads=[Spread.model_validate({**spread, "values": [3.31] * seeds})] if seeds > 1 else [],
        comparisons=[Comparison.model_validate({**compared, "staged": [3.31] * seeds, "direct": [3.12] * seeds, "over": "3 seeds"})],
        lengths=[Length(arm=arm, stage="task", steps=30, step_used=30) for arm in ("staged", "direct")],
    )


@pytest.mark.parametrize("seeds", [1, 3, 10])
def test_seeds_and_comparison_are_one_section_beside_the_gates_lines(run: RunFolder, seeds: int) -> None:
    page = Page(render(dataclasses.replace(gather(run), arms=arms_result(seeds))))
    text = page.text
    assert "what the stages before task did" in text and "What was learned" in text and "What was kept" in text
    assert "▼ hurt" in text and "−0.19" in text and "30 optimizer steps both ways" in text
    assert ("Seed 2 has the lowest eval_loss" in text, "3.310 ± 0.05" in text) == (seeds > 1, seeds > 1)
    assert {"story-task-0-wide", "story-kept-0-wide", "gains-wide"} <= {
        (each.get("aria-labelledby") or "").removesuffix("-desc").rpartition("-title ")[2] for each in page.named("svg")
    }


def test_a_run_of_one_arm_says_nothing_of_arms(written: str) -> None:
    assert 'id="story"' not in written and "seed 1" not in Page(written).text
