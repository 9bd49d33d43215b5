"""What `prepare` of a gigabyte costs: time, peak memory of all its processes together, and what a second start costs.

    python -m tests.bench.prepare [--megabytes 1000] [--model DIR] [--folder DIR]

Rows are paragraphs of the Python reference (in the standard library's pydoc_data) put together anew, 200 to 4,000 characters long, each
with a number of its own. `second`: nothing changed. `touched`: the file's times changed, so it is hashed again, and its rows are cached.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from finetune_api.plan import Runtime, plan
from finetune_api.v1alpha1.fine_tune_job import FineTuneJob
from tests.procfs import memory
from tests.tiny import make_tiny_llama

SAMPLE_SECONDS = 0.05
MOST_MIB = 1024
MOST_AGAIN = 0.05
"""Of the first run's time, for a second one on the same data."""


class Cost(NamedTuple):
    seconds: float
    cpu_seconds: float
    peak_mib: float
    """Resident memory, summed over the process and all its descendants, at its highest."""


def make_rows(path: Path, size: int) -> int:
    """Write `size` bytes of JSONL; returns the number of rows."""
    from pydoc_data.topics import topics

    paragraphs = [paragraph for text in topics.values() for paragraph in text.split("\n\n") if len(paragraph) > 80]
    chance = random.Random(0)
    written = rows = 0
    with path.open("w", encoding="utf-8") as stream:
        while written < size:
            length, text = chance.randint(200, 4000), f"{rows}. "
            while len(text) < length:
                text += chance.choice(paragraphs) + "\n\n"
            written += stream.write(json.dumps({"text": text[:length]}) + "\n")
            rows += 1
    return rows


def write_config(folder: Path, model: Path) -> Path:
    spec = {
        "model": {"uri": f"file://{model}"},
        "stages": [
            {
                "name": "domain",
                "objective": "causalLanguageModeling",
                "data": {"train": [{"uri": "file://rows.jsonl"}], "validation": {"fraction": 0.01}},
                "method": {"type": "full"},
                "training": {"maxLength": 512},
            }
        ],
    }
    job = {"apiVersion": "finetune.dev/v1alpha1", "kind": "FineTuneJob", "metadata": {"name": "bench"}, "spec": spec}
    runtime = Runtime(run_folder=str(folder / "run"), base_folder=str(folder), threads=os.cpu_count() or 1)
    path = folder / "config.json"
    path.write_text(plan(FineTuneJob.model_validate(job), runtime=runtime).segments[0].model_dump_json(exclude_none=True))
    return path


def measure(config: Path) -> Cost:
    """Run prepare in a process of its own and watch the memory of its whole family."""
    began = time.monotonic()
    before = os.times()
    process = subprocess.Popen([sys.executable, "-m", "finetune_trainer", "prepare", "--config", str(config)], stderr=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        peak = max(peak, sum(map(resident, family(process.pid))))
        time.sleep(SAMPLE_SECONDS)
    if process.returncode:
        raise SystemExit(f"prepare ended with {process.returncode}")
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return Cost(time.monotonic() - began, cpu, peak / 1024)


def family(pid: int) -> list[int]:
    """A process and all its descendants."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return []
    return [pid, *(one for child in children for one in family(int(child)))]


def resident(pid: int) -> int:
    """KiB that a process holds in memory."""
    try:
        return memory("VmRSS", pid)
    except (FileNotFoundError, ProcessLookupError, KeyError):
        return 0


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--megabytes", type=int, default=1000)
    options.add_argument("--model", type=Path, help="a model's folder; default: the tests' tiny Llama")
    options.add_argument("--folder", type=Path, help="where to work; default: a temporary folder")
    arguments = options.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="bench-prepare-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        model = arguments.model or make_tiny_llama(folder / "model")
        rows = make_rows(folder / "rows.jsonl", arguments.megabytes * 1_000_000)
        config = write_config(folder, model)
        time.sleep(2.5)  # a file younger than the clock's grain is hashed again, which is not what is measured
        first = measure(config)
        second = measure(config)
        (folder / "rows.jsonl").touch()
        touched = measure(config)
        megabytes = (folder / "rows.jsonl").stat().st_size / 1e6
        print("| prepare | rows | MB | first s (CPU s) | MB/s | peak MiB | second s | second / first | touched s | touched / first |")
        print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
        peak = max(first.peak_mib, second.peak_mib, touched.peak_mib)
        print(
            f"| jsonl | {rows:,} | {megabytes:.0f} | {first.seconds:.1f} ({first.cpu_seconds:.1f}) | {megabytes / first.seconds:.1f} | "
            f"{peak:.0f} | {second.seconds:.2f} | {second.seconds / first.seconds:.2%} | "
            f"{touched.seconds:.2f} | {touched.seconds / first.seconds:.2%} |"
        )
        again = second.seconds / first.seconds
        print(f"peak {peak:.0f} MiB, at most {MOST_MIB}; second / first {again:.2%}, at most {MOST_AGAIN:.0%}")
        return int(peak > MOST_MIB or again > MOST_AGAIN)
    finally:
        if arguments.folder is None:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    raise SystemExit(main())
