"""From process start to the first optimizer step, against TRL's script for the same job: `python -m tests.bench.start [--repeats N]`.

Cold: `prepare` and `train`, as `finetune run` starts them, on 200 rows. Warm: `train` on 20,000 rows that `prepare` has done before; TRL's
script tokenises them. CPU seconds of every process, by turns; the model is tiny, so that what is measured is the programs' own.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from finetune_api.plan import Runtime, plan
from finetune_api.v1alpha1.fine_tune_job import FineTuneJob
from tests.tiny import make_tiny_llama

TICKS = os.sysconf("SC_CLK_TCK")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "HF_DATASETS_OFFLINE": "1"}
PROGRESS_FD = "FINETUNE_PROGRESS_FD"
TARGETS = {"cold": 1.0, "warm": 0.6}
ROWS = {"cold": 200, "warm": 20_000}


def write_rows(path: Path, count: int) -> None:
    """Pairs of some forty words; all different."""
    with path.open("w") as file:
        for number in range(count):
            answer = " ".join(f"the number {number} times {factor} is {number * factor}." for factor in range(2, 8))
            file.write(json.dumps({"prompt": f"Say what follows from {number}.", "completion": f" {answer}"}) + "\n")


def configs(folder: Path, model: Path, rows: Path) -> tuple[Path, Path]:
    """The files that `finetune run` hands to prepare and to train."""
    job = FineTuneJob.model_validate(
        {
            "apiVersion": "finetune.dev/v1alpha1",
            "kind": "FineTuneJob",
            "metadata": {"name": "start"},
            "spec": {
                "model": {"uri": f"file://{model}"},
                "stages": [
                    {
                        "name": "task",
                        "objective": "supervised",
                        "data": {"train": [{"uri": f"file://{rows}"}]},
                        "method": {"type": "full"},
                        "training": {"maxSteps": 2, "maxLength": 128, "learningRate": 1e-4},
                    }
                ],
            },
        }
    )
    planned = plan(job, runtime=Runtime(run_folder=str(folder / "run"), threads=1))
    paths = []
    for segment in planned.segments:
        path = folder / f"{segment.segment.kind}.json"
        path.write_text(segment.model_dump_json())
        paths.append(path)
    return paths[0], paths[1]


def cpu_to_the_end(command: list[str]) -> float:
    """CPU seconds of a process and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, env=ENVIRONMENT, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def cpu_to_the_first_step(command: list[str], said: str) -> float:
    """CPU seconds of a process and its ended children until it says so, on stdout or on the progress descriptor; then it is killed."""
    reading, writing = os.pipe()
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command, env=ENVIRONMENT | {PROGRESS_FD: str(writing)}, pass_fds=(writing,), stdout=writing, stderr=errors
        )
        os.close(writing)
        try:
            with os.fdopen(reading) as lines:
                if any(said in line for line in lines):
                    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
                    return sum(int(field) for field in fields[11:15]) / TICKS
        finally:
            process.kill()
            process.wait()
        errors.seek(0)
        raise RuntimeError(f"{command} never said {said!r}:\n{errors.read()[-2000:]}")


def ours(folder: Path, model: Path, rows: Path, *, warm: bool) -> float:
    """`prepare` and `train` as processes of their own; warm: `prepare` does not count."""
    preparing, training = configs(folder, model, rows)
    trainer = [sys.executable, "-m", "finetune_trainer"]
    prepared = cpu_to_the_end([*trainer, "prepare", "--config", str(preparing)])
    trained = cpu_to_the_first_step([*trainer, "train", "--config", str(training)], '"learningRate"')
    return trained if warm else prepared + trained


def trl(model: Path, rows: Path) -> float:
    """TRL's script, everything in it."""
    script = Path(__file__).with_name("trl_script.py")
    # -P: beside the script lies a package named like the standard library's `operator`.
    return cpu_to_the_first_step([sys.executable, "-P", str(script), str(model), str(rows)], "first step")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    print(f"{'case':6} {'rows':>7} {'ours':>8} {'TRL':>8} {'ratio':>7} {'target':>7}   CPU seconds to the first step, medians")
    short = False
    for case, goal in TARGETS.items():
        pairs = []
        for _ in range(options.repeats):
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                model, rows = make_tiny_llama(folder / "model"), folder / "rows.jsonl"
                write_rows(rows, ROWS[case])
                pairs.append((ours(folder, model, rows, warm=case == "warm"), trl(model, rows)))
        ratio = median(mine / theirs for mine, theirs in pairs)
        short = short or ratio > goal
        mine, theirs = (median(pair[side] for pair in pairs) for side in (0, 1))
        print(
            f"{case:6} {ROWS[case]:7} {mine:8.1f} {theirs:8.1f} {ratio:7.2f} {goal:7.2f}{'' if ratio <= goal else '   SHORT'}", flush=True
        )
    return int(short)


if __name__ == "__main__":
    raise SystemExit(main())
