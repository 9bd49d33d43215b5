"""`finetune run` with the real trainer and a tiny model: stopped or killed in any phase, resumed, finished, shown again."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

JOB = """\
apiVersion: finetune.dev/v1alpha1
kind: FineTuneJob
metadata: {{name: birds}}
spec:
  model: {{uri: "file://{model}"}}
  stages:
  - name: domain
    objective: causalLanguageModeling
    data: {{train: [{{uri: "file://glosses.jsonl"}}]}}
    method: {{type: lora, lora: {{r: 2}}}}
    training: {{maxSteps: 600, perDeviceTrainBatchSize: 2}}  # long enough that a signal always arrives before its end
    checkpoint: {{everySteps: 20}}
    handOver: merge
  - name: task
    objective: supervised
    data: {{train: [{{uri: "file://pairs.jsonl"}}]}}
    method: {{type: lora, lora: {{r: 2}}}}
    training: {{maxSteps: 5, perDeviceTrainBatchSize: 2}}
  evaluation:
    samples: {{count: 1, maxNewTokens: 4}}
    suites:
    - {{name: words, objective: supervised, data: {{uri: "file://words.jsonl"}}, metrics: [loss]}}
"""


def shorten(job: Path) -> None:
    """To five steps a stage, so that what comes after them is reached soon; and have two models published."""
    job.write_text(job.read_text().replace("maxSteps: 600", "maxSteps: 5") + "  output: {format: [adapter, merged]}\n")


@pytest.fixture
def job(tmp_path: Path, tiny_llama: Path) -> Path:
    rows = range(24)
    (tmp_path / "glosses.jsonl").write_text(
        "".join(json.dumps({"text": f"bird {i} is a small bird of the {i}th tree"}) + "\n" for i in rows)
    )
    for name, count in (("pairs", 24), ("words", 500)):  # words: long enough that a signal always arrives while they are measured
        pairs = ({"prompt": f"Define: bird {i}", "completion": "a bird"} for i in range(count))
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    path = tmp_path / "job.yaml"
    path.write_text(JOB.format(model=tiny_llama))
    return path


def command(job: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "finetune_cli", "run", job.name, "--threads", "1", *options]


def stopped(job: Path, number: int, at: str) -> list[str]:
    """Start the run, send it a signal once it has said `at`, and return what it said."""
    environment = {**os.environ, "COLUMNS": "110"}
    process = subprocess.Popen(command(job), cwd=job.parent, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    said: list[str] = []
    with process:
        assert process.stderr is not None
        for line in process.stderr:
            if at in line and not any(at in one for one in said):
                process.send_signal(number)
            said.append(line)
    assert process.returncode == 75, "".join(said)
    assert "Traceback" not in "".join(said)
    assert said[-1] == "  Go on with: finetune run job.yaml\n"
    return said


STOPS = [
    # signal, what was said before it, how it ended
    (signal.SIGINT, "preparing data", r"before anything was begun|before the next part began|while the data was prepared; .*"),
    (signal.SIGTERM, "loading the model", r"before anything was begun|everything so far is saved|while suite words was measured; .*"),
    (
        signal.SIGINT,
        "evaluating base on words",
        r"while suite words was measured; nothing is lost, it is measured again from its beginning",
    ),
    (signal.SIGTERM, "step 40 of stage domain is saved", r"after step \d+ of stage domain, which is saved"),
]


LATER_STOPS = [
    (signal.SIGTERM, "evaluating after domain on words", r"while suite words was measured; nothing is lost, .*|everything so far is saved"),
    (signal.SIGINT, "stage domain is handed over", r"everything so far is saved|after step \d+ of stage task, which is saved"),
    (signal.SIGTERM, "the adapter model is written", r"everything so far is saved"),
]


def test_a_stop_after_the_steps_says_what_is_kept_and_the_same_command_ends_the_run(job: Path) -> None:
    shorten(job)
    pairs = job.parent / "pairs.jsonl"
    pairs.write_text(pairs.read_text() * 8)  # measuring is long enough to be met
    for number, at, told in LATER_STOPS:
        last = stopped(job, number, at)[-2]
        assert re.fullmatch(f"Stopped: (?:{told})\n", last), f"{at}: {last}"
    done = subprocess.run(command(job), cwd=job.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "resumed from step 5" in done.stderr
    assert {path.name for path in (job.parent / "runs/birds/artifacts").iterdir()} >= {"adapter", "merged", "report.html"}


def test_a_kill_while_the_data_is_prepared_leaves_nothing_half_and_the_same_command_goes_on(job: Path) -> None:
    shorten(job)
    (job.parent / "more.jsonl").write_text((job.parent / "glosses.jsonl").read_text() * 1500)
    job.write_text(job.read_text().replace("glosses.jsonl", "more.jsonl"))
    prepared = job.parent / "runs/birds/prepared"
    process = subprocess.Popen(command(job), cwd=job.parent, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not (half := [*prepared.glob(".building-*/tokens.bin")]) and process.poll() is None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.01)
    os.kill(json.loads((job.parent / "runs/birds/lock").read_bytes())["pid"], signal.SIGKILL)
    said = process.communicate()[1]
    assert process.returncode == 137, said
    assert "was killed (SIGKILL, exit code 137)" in said
    assert [path for path in half if path.is_file()], "it was over before it was killed"

    done = subprocess.run(command(job), cwd=job.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in prepared.iterdir() if path.name.startswith(".building")] == []


def test_a_stop_in_any_phase_says_what_is_kept_and_a_damaged_checkpoint_is_left_aside(job: Path) -> None:
    for number, at, told in STOPS:
        last = stopped(job, number, at)[-2]
        assert re.fullmatch(f"Stopped: (?:{told})\n", last), f"{at}: {last}"
    newest = max(job.parent.glob("runs/birds/epochs/*/stages/0-domain/checkpoint-*"))
    (newest / "weights.safetensors").write_bytes(b"")
    said = "".join(stopped(job, signal.SIGINT, "a damaged checkpoint is left aside"))
    assert re.search(
        rf"a damaged checkpoint is left aside: epochs/\d+/stages/0-domain/{newest.name}: weights.safetensors has 0 bytes instead", said
    )


def test_ctrl_c_saves_the_same_command_goes_on_and_a_finished_run_is_shown(job: Path) -> None:
    environment = {**os.environ, "COLUMNS": "110"}
    first = subprocess.Popen(command(job), cwd=job.parent, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert first.stderr is not None
    said = []
    for line in first.stderr:
        said.append(line)
        if "training domain" in line and len([one for one in said if "training domain" in one]) == 1:
            first.send_signal(signal.SIGINT)
    assert first.wait() == 75, "".join(said)
    assert first.stdout is not None
    first.stdout.close()
    first.stderr.close()
    assert said[-1] == "  Go on with: finetune run job.yaml\n"

    second = subprocess.run(command(job), cwd=job.parent, env=environment, capture_output=True, text=True, check=False)
    assert second.returncode == 0, second.stderr
    assert "resumed from step " in second.stderr
    for part in ("Evaluation, with 95 % bootstrap intervals", "after domain", "after task", "Samples", "birds succeeded in", "report.html"):
        assert part in second.stdout

    third = subprocess.run(command(job, "-o", "json"), cwd=job.parent, env=environment, capture_output=True, text=True, check=False)
    document = json.loads(third.stdout)
    assert (third.returncode, third.stderr, document["outcome"]) == (0, "", "Succeeded")
    assert [stage["status"]["phase"] for stage in document["stages"]] == ["Succeeded", "Succeeded"]
    assert Path(document["report"]).stat().st_size > 10_000
