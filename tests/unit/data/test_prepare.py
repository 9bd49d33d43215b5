"""prepare as a whole: what is done once only, what is done again, what is reported, and what is left after a stop."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from finetune_api.wire import Activity, TrainerConfig
from finetune_trainer.data.cache import PartCache
from finetune_trainer.data.hashes import FileHashes
from finetune_trainer.data.prepare import prepare
from finetune_trainer.data.prepared import Prepared, load_prepared, read_report
from finetune_trainer.data.rows import RowSet, RowSetWriter
from finetune_trainer.errors import Stopped, TrainerError
from finetune_trainer.progress import NullReporter
from finetune_trainer.run_folder import RunFolder

ROWS = [{"text": f"cat number {n} sat on mat {n * 7}"} for n in range(60)]


class Recorder:
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.totals: list[int] = []

    def report(self, activity: Activity, **fields: Any) -> None:
        if "message" in fields:
            self.messages.append(fields["message"])
        if "total" in fields:
            self.totals.append(fields["total"])


def parts(job: Any) -> dict[str, int]:
    """Every part of the run folder, with the inode of its tokens: another one means that it was written again."""
    return {
        folder.name: (folder / "tokens.bin").stat().st_ino
        for folder in (job.run / "prepared").iterdir()
        if (folder / "meta.json").is_file()
    }


def run(config: TrainerConfig) -> list[str]:
    recorder = Recorder()
    prepare(config, recorder)
    return recorder.messages


def contents(rows: RowSet) -> list[list[int]]:
    return [rows.tokens(i).tolist() for i in range(len(rows))]


def test_rows_that_show_too_little_with_another_seed_are_told_once(job: Any) -> None:
    """Of two rows one is drawn: with seed 1 the long one, with 3 and 5 the short one."""
    rows = job.file("a.jsonl", [ROWS[0] | {"text": "cat sat on mat " * 9}, ROWS[1] | {"text": "cat"}])
    begun = {"type": "lora", "lora": {"r": 4, "initialization": "eva", "initializationRows": 1}}
    config = job.config(rows, method=begun)
    for seeds, told in (([1], 0), ([1, 3, 5], 1)):
        several = config.model_copy(update={"spec": config.spec.model_copy(update={"seed": None, "seeds": seeds})})
        with pytest.raises(TrainerError) if told else nullcontext() as caught:
            run(several)
        assert (str(caught.value) if caught else "").count("in 1 row cannot show 8 directions") == told


def test_a_second_start_tokenises_nothing(job: Any) -> None:
    config = job.config(job.file("a.jsonl", ROWS))
    run(config)
    before = parts(job)
    run(config)
    assert parts(job) == before


def test_where_no_file_moved_the_second_start_reads_nothing(job: Any, tmp_path: Path) -> None:
    config = job.config(job.file("a.jsonl", ROWS))
    # As two seconds after the files were written.
    later = (
        max(file.stat().st_ctime_ns for file in [*Path(job.model.removeprefix("file://")).iterdir(), tmp_path / "a.jsonl"]) + 60_000_000_000
    )
    prepare(config, NullReporter(), clock=lambda: later)
    assert run(config) == ["the data is prepared already, and nothing changed"]
    job.file("a.jsonl", ROWS[:-1])
    assert run(config) == []


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("content", lambda job: job.file("a.jsonl", [*ROWS, {"text": "one more"}])),
        ("maxLength", lambda job: {"training": {"maxLength": 8}}),
        ("overflow", lambda job: {"overflow": "drop"}),
        ("column", lambda job: job.file("a.jsonl", [{"body": row["text"]} for row in ROWS]) and {"columns": {"text": "body"}}),
        ("chat template", lambda job: {"model": {"chatTemplate": "{{ messages }}"}}),
        ("objective", lambda job: {"objective": "supervised", "columns": {"prompt": "text", "completion": "text"}}),
    ],
)
def test_another_input_is_another_part(job: Any, name: str, change: Callable[[Any], Any]) -> None:
    uri = job.file("a.jsonl", ROWS)
    run(job.config(uri))
    before = parts(job)
    changed = change(job)
    run(job.config(uri, **(changed if isinstance(changed, dict) else {})))
    assert set(parts(job)).isdisjoint(before)


def test_one_changed_source_leaves_the_others(job: Any) -> None:
    sources = [{"uri": job.file("a.jsonl", ROWS)}, {"uri": job.file("b.jsonl", ROWS[:5])}]
    run(job.config(sources))
    before = parts(job)
    job.file("b.jsonl", ROWS[:6])
    run(job.config(sources))
    assert len(set(parts(job).items()) & set(before.items())) == 1
    assert len(parts(job)) == 2


def test_a_renamed_file_is_the_same_part_with_the_new_name(job: Any) -> None:
    run(job.config(job.file("a.jsonl", ROWS)))
    before = parts(job)
    (job.folder / "a.jsonl").rename(job.folder / "b.jsonl")
    prepared = job.prepare("file://b.jsonl")
    assert parts(job) == before
    assert prepared.stages["a"].train.where(0) == "b.jsonl:1"


def test_stages_and_suites_share_a_part(job: Any) -> None:
    uri = job.file("a.jsonl", ROWS)
    suites = [{"name": name, "objective": "causalLanguageModeling", "data": {"uri": uri}, "metrics": ["loss"]} for name in ("s", "t")]
    prepared = job.prepare(uri, suites=suites)
    assert len(parts(job)) == 1
    assert len(prepared.suites["t"].rows) == len(ROWS)
    assert prepared.report.leaks[0].share == 1.0


def test_a_part_that_lost_bytes_is_built_again(job: Any) -> None:
    config = job.config(job.file("a.jsonl", ROWS))
    run(config)
    (key,) = parts(job)
    (job.run / "prepared" / key / "tokens.bin").write_bytes(b"")
    with pytest.raises(TrainerError, match=f"the tokenised rows {key} are gone: run prepare again"):
        load_prepared(config)
    run(config)
    assert len(load_prepared(config).stages["a"].train) == len(ROWS)


def test_a_model_that_moved_is_found_again(job: Any, tiny_llama: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_llama, tmp_path / "claim/model")
    job.mounts["models"] = str(tmp_path / "claim")
    config = job.config(job.file("a.jsonl", ROWS), model={"uri": "pvc://models/model"})
    run(config)
    (tmp_path / "claim").rename(tmp_path / "elsewhere")
    moved = config.model_copy(update={"mounts": {"models": str(tmp_path / "elsewhere")}})
    assert load_prepared(moved).model_folder == tmp_path / "elsewhere/model"


def test_a_shared_cache_serves_another_run(job: Any, tmp_path: Path, make_job: Callable[[Path], Any], tiny_llama: Path) -> None:
    shared = tmp_path / "shared"

    def write(folder: Path) -> None:
        with RowSetWriter(folder, vocabulary=9, supervision="all") as writer:
            writer.close()

    first, second = PartCache(tmp_path / "one", shared), PartCache(tmp_path / "two", shared)
    with first.building("key") as folder:
        write(folder)
    assert second.find("key") == shared / "key"
    with second.building("key") as folder:
        write(folder)
    assert [path.name for path in shared.iterdir()] == ["key"]


def test_a_crash_while_building_leaves_nothing(tmp_path: Path) -> None:
    cache = PartCache(tmp_path)
    with pytest.raises(RuntimeError), cache.building("key") as folder:
        (folder / "tokens.bin").write_bytes(b"half")
        raise RuntimeError
    assert cache.find("key") is None
    assert list(tmp_path.iterdir()) == []


def test_a_stop_keeps_whole_parts_and_the_next_start_goes_on(job: Any) -> None:
    sources = [{"uri": job.file("a.jsonl", ROWS)}, {"uri": job.file("b.jsonl", ROWS * 50)}]
    config = job.config(sources)
    asked = iter([False] * 3 + [True] * 99)
    with pytest.raises(Stopped, match="while the data was prepared; the sources that were finished are kept"):
        prepare(config, NullReporter(), stop=lambda: next(asked))
    kept = parts(job)
    assert not [path for path in (job.run / "prepared").iterdir() if path.name.startswith(".building")]
    prepare(config, NullReporter())
    assert len(parts(job)) == 2
    assert kept.items() <= parts(job).items()
    assert load_prepared(config).stages["a"].train.lengths.sum() > 0


def test_progress_is_told_in_bytes(job: Any) -> None:
    recorder = Recorder()
    config = job.config(job.file("a.jsonl", ROWS))
    prepare(config, recorder)
    assert set(recorder.totals) == {(job.folder / "a.jsonl").stat().st_size}


def test_hashes_are_believed_only_while_nothing_moved(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    now = path.stat().st_ctime_ns
    early = FileHashes(tmp_path / "index.json", clock=lambda: now + 1_000_000_000)
    first = early.sha256(path)
    assert early.known(path) is None, "the file may change within the clock's grain"
    late = FileHashes(tmp_path / "index.json", clock=lambda: now + 60_000_000_000)
    assert late.sha256(path) == first
    late.save()
    again = FileHashes(tmp_path / "index.json")
    assert again.known(path) == first
    path.write_bytes(b"two")
    os.utime(path, ns=(path.stat().st_atime_ns, now))
    assert again.known(path) is None, "the change time tells, although size and modification time are the same"
    assert again.sha256(path) != first


def test_a_torn_index_is_no_harm(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text('{"a": [')
    (tmp_path / "file").write_bytes(b"x")
    assert len(FileHashes(tmp_path / "index.json").sha256(tmp_path / "file")) == 64


def test_validation_by_fraction_is_stable_when_rows_are_added(job: Any) -> None:
    def validation(rows: list[dict[str, str]]) -> set[str]:
        prepared: Prepared = job.prepare(job.file("a.jsonl", rows), validation={"fraction": 0.3})
        chosen = prepared.stages["a"].validation
        assert chosen is not None
        assert len(chosen) + len(prepared.stages["a"].train) == len(rows)
        return {chosen.id(i) for i in range(len(chosen))}

    before = validation(ROWS)
    after = validation([{"text": "a new row"}, *ROWS[::-1], {"text": "and another"}])
    assert 5 < len(before) < 40
    assert before <= after
    assert len(after - before) <= 2


def test_rows_with_one_prompt_stay_on_one_side(job: Any) -> None:
    rows = [{"prompt": f"Define: word {n % 20}", "completion": f"answer {n}"} for n in range(100)]
    stage = job.prepare(job.file("a.jsonl", rows), "supervised", validation={"fraction": 0.4}).stages["a"]
    assert not set(stage.train.inputs.tolist()) & set(stage.validation.inputs.tolist())


def test_weights_are_shares_of_tokens(job: Any) -> None:
    sources = [
        {"uri": job.file("a.jsonl", ROWS * 5), "weight": 0.25},
        {"uri": job.file("b.jsonl", [{"text": f"dog {n}"} for n in range(100)]), "weight": 0.75},
    ]
    prepared = job.prepare(sources)
    report = prepared.report.stages[0]
    assert report.shares == pytest.approx([0.25, 0.75], abs=0.02)
    assert report.epoch_rows == len(prepared.stages["a"].selection) > 400


def test_duplicates_leaks_and_classes_are_reported(job: Any) -> None:
    rows = [{"text": f"cat {n % 8}", "label": "ab"[n % 2]} for n in range(10)]
    suite = job.file("s.jsonl", [{"text": "cat 1", "label": "b"}, {"text": "cat 2", "label": "b"}, {"text": "new", "label": "a"}])
    spec = {"name": "s", "objective": "classification", "data": {"uri": suite}, "metrics": ["accuracy"]}
    report = job.prepare(job.file("a.jsonl", rows), "classification", suites=[spec]).report
    assert report.stages[0].train.exact_duplicates == 2
    assert report.stages[0].train.classes == {"a": 5, "b": 5}
    (leak,) = report.leaks
    assert (leak.measured, leak.stage, leak.exact, leak.input, leak.examples) == ("suite s", "a", 1, 2, ["s.jsonl:1", "s.jsonl:2"])
    assert (
        "suite s: 2 of 3 rows (66.7%) have an input that stage a trains on (1 with the same answer); the first is s.jsonl:1"
        in report.warnings
    )
    assert "stage a: 2 of 10 rows repeat an earlier one exactly" in report.warnings


def test_the_report_counts_what_is_learned_cut_and_left_out(job: Any) -> None:
    """Against the model's own tokenizer: two rows that fit, one that is cut, and one whose prompt leaves no room for an answer."""
    rows = [("word " * words, answer) for words, answer in ((1, "a cat"), (5, "a dog"), (5, "a cat " * 20), (40, "a cat"))]
    job.prepare(job.file("a.jsonl", [{"prompt": ask, "completion": say} for ask, say in rows]), "supervised", training={"maxLength": 48})
    saved = read_report(RunFolder(job.run))
    assert saved is not None
    found = saved.stages[0].train

    tokenizer = AutoTokenizer.from_pretrained(job.model.removeprefix("file://"))
    asked = [f"<|im_start|>user\n{ask}<|im_end|>\n<|im_start|>assistant\n" for ask, _ in rows]
    answers = [len(tokenizer.encode(f"{say}<|im_end|>", add_special_tokens=False)) for _, say in rows]
    wholes = [len(tokenizer.encode(text, add_special_tokens=False)) + own for text, own in zip(asked, answers, strict=True)]
    assert [whole > 48 for whole in wholes] == [False, False, True, True]
    used = [*wholes[:2], 48]
    learned = answers[0] + answers[1] + answers[2] - (wholes[2] - 48)
    assert (found.rows, found.tokens, found.longest) == (3, sum(used), 48)
    assert found.mean_length == pytest.approx(sum(used) / 3)
    assert found.supervised_share == pytest.approx(learned / sum(used))
    assert (found.truncated_share, found.dropped_share) == (pytest.approx(1 / 3), 1 / 4)
    edges = found.histogram.edges
    between = [sum(low <= length < high for length in used) for low, high in itertools.pairwise(edges)]
    assert found.histogram.counts == between
    assert sum(between) == 3


def test_a_suite_that_the_model_cannot_serve_is_left_empty_and_said(job: Any) -> None:
    uri = job.file("a.jsonl", ROWS)
    suite = {"name": "s", "objective": "maskedLanguageModeling", "data": {"uri": uri}, "metrics": ["loss"]}
    prepared = job.prepare(uri, suites=[suite])
    assert len(prepared.suites["s"].rows) == 0
    assert any("suite s is not applicable to this model" in warning for warning in prepared.report.warnings)


def test_a_schedule_is_measured_by_the_steps_that_the_data_gives(job: Any) -> None:
    """60 rows in batches of 8 are 8 steps: two changes fit in, if there are four steps between them at most."""
    uri, once = job.file("a.jsonl", ROWS), {"numTrainEpochs": 1, "perDeviceTrainBatchSize": 8}
    gradual = {"type": "gradual", "gradual": {"everySteps": 4}}
    with pytest.raises(TrainerError, match="would end after 8 steps, and the stage ends after 8") as caught:
        job.prepare(uri, method=gradual, training=once)
    assert caught.value.where == "spec.stages[0].method.gradual.everySteps"
    job.prepare(uri, method=gradual, training={**once, "numTrainEpochs": 2})


def test_provenance_names_the_data_and_the_model(job: Any) -> None:
    prepared = job.prepare(job.file("a.jsonl", ROWS))
    assert list(prepared.provenance.dataset_hashes) == ["file://a.jsonl"]
    assert len(prepared.provenance.model_revision or "") == 64
    assert json.loads((job.run / "prepare.json").read_text())["tokenizer"]["padWhy"] == "the model's pad token"


def test_nothing_prepared_is_told(job: Any) -> None:
    with pytest.raises(TrainerError, match="holds no prepared data for this manifest: run prepare first"):
        load_prepared(job.config("file://a.jsonl"))


def test_the_same_files_give_the_same_rows(job: Any) -> None:
    first = contents(job.prepare(job.file("a.jsonl", ROWS)).stages["a"].train)
    for folder in (job.run / "prepared").iterdir():
        for file in folder.iterdir() if folder.is_dir() else []:
            file.unlink()
    (job.run / "prepare.json").unlink()
    assert contents(job.prepare("file://a.jsonl").stages["a"].train) == first


def test_neither_start_imports_torch_and_the_second_not_even_transformers(job: Any) -> None:
    (job.folder / "config.json").write_text(job.config(job.file("a.jsonl", ROWS)).model_dump_json(exclude_none=True))
    code = (
        "import sys, time; from pathlib import Path\n"
        "from finetune_api.wire import TrainerConfig; from finetune_trainer.data.prepare import prepare\n"
        "from finetune_trainer.progress import NullReporter\n"
        f"config = TrainerConfig.model_validate_json(Path({str(job.folder / 'config.json')!r}).read_bytes())\n"
        "prepare(config, NullReporter(), clock=lambda: time.time_ns() + 60_000_000_000)\n"
        "print([name for name in ('torch', 'transformers', 'pyarrow') if name in sys.modules])"
    )
    outputs = [subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip() for _ in range(2)]
    assert outputs == ["['transformers']", "[]"]
