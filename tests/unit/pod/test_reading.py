"""`read`: what is printed of a job that has ended, and what never is."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finetune_api.constants import ExitCode
from finetune_api.plan import Runtime, plan
from finetune_api.reading import SLICE_BYTES, Reading, Slice, What, digest_of, read_slice
from finetune_api.v1alpha1.fine_tune_job import FineTuneJob
from finetune_api.v1alpha1.status import Artifact
from finetune_api.wire import PodConfig, RunResult, TrainerConfig
from finetune_trainer.errors import TrainerError
from finetune_trainer.export.place import measured
from finetune_trainer.logs import Masking
from finetune_trainer.reading import logs_of, tell_slice
from finetune_trainer.run_folder import RunFolder
from tests.builders import job, stage

TOKEN = "hf_" + "a" * 30
Edit = Callable[[Path], object]


def read_config(root: Path, what: What, *artifacts: Artifact, first: int = 0, output: str | None = None) -> TrainerConfig:
    document = job(stage("task"), **({"output": {"uri": output}} if output else {}))
    runtime = Runtime(run_folder=str(root / "run"), base_folder=str(root), mounts={"models": str(root / "models")})
    last = plan(FineTuneJob.model_validate(document), runtime=runtime).segments[-1]
    reading = Reading(what=what, artifacts=list(artifacts), first=first)
    pod = PodConfig(attempt=1, run_uri="pvc://runs/team-a/example-1")
    return last.model_copy(update={"pod": pod, "reading": reading})


def artifact(kind: str, path: Path, **changes: Any) -> Artifact:
    digest, size = measured(path)
    return Artifact.model_validate({"kind": kind, "uri": f"pvc://runs/{path.name}", "sha256": digest, "bytes": size, **changes})


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder after success: an adapter with a folder in it, a report, a card, two logs; and a neighbour's secret beside it."""
    root = tmp_path / "run"
    (root / "artifacts/adapter/base").mkdir(parents=True)
    (root / "artifacts/adapter/adapter_config.json").write_text("{}")
    (root / "artifacts/adapter/adapter_model.safetensors").write_bytes(os.urandom(70_000))
    (root / "artifacts/adapter/base/config.json").write_text('{"a": 1}')
    (root / "artifacts/report.html").write_text("<h1>ä</h1>")
    (root / "artifacts/README.md").write_text("# card")
    (root / "logs").mkdir()
    (root / "logs/002-prepare.log").write_text("prepared\n")
    (root / "logs/010-train.log").write_text(f"fetched with {TOKEN}\nloss 0.5 \udcff\n", errors="surrogateescape")
    (root / "logs/notes.txt").write_text("not a log\n")
    (tmp_path / "secret").write_text("of a neighbour")
    return root


def told(config: TrainerConfig, number: int = 0) -> Slice:
    out = io.BytesIO()
    tell_slice(config, number, out, Masking())
    return read_slice(out.getvalue().split(b"\n"))


def files(found: list[Slice]) -> dict[str, bytes]:
    stream, taken = b"".join(one.data for one in found), {}
    for entry in found[0].head.files:
        taken[entry.name], stream = stream[: entry.bytes], stream[entry.bytes :]
    assert not stream
    return taken


def test_an_adapter_arrives_whole_with_its_hash(run: Path) -> None:
    import hashlib

    adapter = artifact("adapter", run / "artifacts/adapter")
    found = told(read_config(run.parent, What.ADAPTER, adapter))
    got = files([found])
    assert set(got) == {"adapter_config.json", "adapter_model.safetensors", "base/config.json"}
    assert got["adapter_model.safetensors"] == (run / "artifacts/adapter/adapter_model.safetensors").read_bytes()
    assert digest_of({name: hashlib.sha256(data).hexdigest() for name, data in got.items()}) == adapter.sha256


def test_what_is_longer_than_a_slice_comes_in_several(run: Path) -> None:
    (run / "artifacts/adapter/adapter_model.safetensors").write_bytes(os.urandom(SLICE_BYTES + 1000))
    config = read_config(run.parent, What.ADAPTER, artifact("adapter", run / "artifacts/adapter"))
    slices = [told(config, number) for number in (0, 1)]
    assert [(one.head.slice, one.head.slices, one.head.bytes == len(one.data)) for one in slices] == [(0, 2, True), (1, 2, True)]
    assert files(slices)["adapter_model.safetensors"] == (run / "artifacts/adapter/adapter_model.safetensors").read_bytes()


def test_the_report_comes_with_its_card(run: Path) -> None:
    artifacts = (artifact("report", run / "artifacts/report.html"), artifact("modelCard", run / "artifacts/README.md"))
    assert files([told(read_config(run.parent, What.REPORT, *artifacts))]) == {"report.html": "<h1>ä</h1>".encode(), "README.md": b"# card"}


def test_the_folder_is_the_one_that_the_spec_names(run: Path) -> None:
    target = run.parent / "models/mine"
    (run / "artifacts").rename(run.parent / "elsewhere")
    target.parent.mkdir()
    (run.parent / "elsewhere").rename(target)
    config = read_config(run.parent, What.ADAPTER, artifact("adapter", target / "adapter"), output="pvc://models/mine")
    assert len(files([told(config)])) == 3


def test_logs_come_newest_first_and_masked(run: Path) -> None:
    got = files([told(read_config(run.parent, What.LOGS))])
    assert list(got) == ["010-train.log", "002-prepare.log"]
    assert got["010-train.log"].decode() == "fetched with ***\nloss 0.5 �\n"


def test_of_very_long_logs_the_end_comes(run: Path) -> None:
    (run / "logs/011-train.log").write_text("".join(f"line {number}\n" for number in range(100)))
    pieces = logs_of(RunFolder(run), Masking(), most=100)
    assert [piece.name for piece in pieces] == ["011-train.log"]
    got = pieces[0].read(0, 100)
    assert got.startswith(b"line ") and got.endswith(b"line 99\n") and len(got) <= 100


def _into(path: str, target: str) -> Edit:
    def edit(run: Path) -> None:
        (run / path).unlink()
        (run / path).symlink_to(run.parent / target)

    return edit


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda run: (run / "artifacts/adapter/adapter_config.json").write_text("{ }"), "not the adapter that was published"),
        (lambda run: (run / "artifacts/adapter/more.txt").write_text("x"), "not the adapter that was published"),
        (_into("artifacts/adapter/adapter_config.json", "secret"), "links are not followed"),
        (lambda run: os.mkfifo(run / "artifacts/adapter/pipe"), "no plain file"),
        (lambda run: (run / "artifacts/adapter").rename(run / "gone"), "not there any more"),
        (
            lambda run: (run / "artifacts").rename(run.parent / "x") and (run / "artifacts").symlink_to(run.parent / "x"),
            "leaves the run folder",
        ),
    ],
    ids=["changed", "one more file", "a link", "a pipe", "gone", "a folder that leads out"],
)
def test_what_was_not_published_is_not_printed(run: Path, edit: Edit, says: str) -> None:
    config = read_config(run.parent, What.ADAPTER, artifact("adapter", run / "artifacts/adapter"))
    edit(run)
    with pytest.raises(TrainerError, match=says) as caught:
        told(config)
    assert caught.value.exit_code is ExitCode.NOT_ACCESSIBLE


def test_a_log_that_is_a_link_is_no_log(run: Path) -> None:
    _into("logs/010-train.log", "secret")(run)
    assert list(files([told(read_config(run.parent, What.LOGS))])) == ["002-prepare.log"]
    (run / "logs").rename(run.parent / "logs")
    (run / "logs").symlink_to(run.parent / "logs")
    with pytest.raises(TrainerError, match="no logs"):
        told(read_config(run.parent, What.LOGS))


def test_what_is_too_large_is_refused_with_a_way_out(run: Path) -> None:
    large = artifact("adapter", run / "artifacts/adapter", bytes=2 << 30)
    with pytest.raises(TrainerError, match=r"2,048 MiB, and at most 1,024") as caught:
        told(read_config(run.parent, What.ADAPTER, large))
    assert caught.value.hint is not None and "Mount the claim" in caught.value.hint


def test_the_process_prints_a_slice_and_says_in_its_message_what_is_wrong(run: Path, tmp_path: Path) -> None:
    path, message = tmp_path / "config.json", tmp_path / "message"
    environment = {**os.environ, "FINETUNE_TERMINATION_LOG": str(message)}
    command = [sys.executable, "-m", "finetune_trainer", "read", "--config", str(path), "--slice", "0"]
    path.write_text(read_config(tmp_path, What.LOGS).model_dump_json(exclude_none=True))
    done = subprocess.run(command, env=environment, capture_output=True, check=True)
    assert read_slice(done.stdout.split(b"\n")).head.files[0].name == "010-train.log"
    before = sorted(run.rglob("*"))
    path.write_text(read_config(tmp_path, What.MERGED, artifact("merged", run / "artifacts/adapter")).model_dump_json(exclude_none=True))
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    said = RunResult.model_validate(json.loads(message.read_bytes()))
    assert (done.returncode, done.stdout, said.reason) == (12, b"", "SourceNotFound")
    assert "not there any more" in said.message
    assert sorted(run.rglob("*")) == before, "reading leaves nothing"
