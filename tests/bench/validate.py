"""How much processor time `finetune validate` takes for a job of ten stages, the interpreter's start included, and what it is made of.

`python -m tests.bench.validate`. The machine's other work changes even CPU time, so each case is repeated, interleaved, and the least is told.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from pathlib import Path

STAGES = 10
REPEATS = 15
LIMIT_SECONDS = 0.5

CASES = {
    "interpreter": ["-c", "pass"],
    "import pydantic": ["-c", "import pydantic; pydantic.BaseModel"],
    "import typer": ["-c", "import typer"],
    "import the API's models": ["-c", "import finetune_api.validation"],
    "finetune validate, ten stages": ["-m", "finetune_cli", "validate", "job.yaml"],
}


def manifest(stages: int) -> str:
    """A valid job of so many stages, each with data, method, training and a suite of its own."""
    lines = [
        "apiVersion: finetune.dev/v1alpha1",
        "kind: FineTuneJob",
        "metadata: {name: ten-stages}",
        "spec:",
        "  model: {uri: 'file://model'}",
        "  stages:",
    ]
    for index in range(stages):
        lines += [
            f"  - name: stage-{index}",
            "    objective: supervised",
            f"    data: {{train: [{{uri: 'file://train-{index}.jsonl', weight: 0.9}}], validation: {{fraction: 0.02}}}}",
            "    method: {type: lora, lora: {r: 16, alpha: 32, targetModules: [all-linear]}}",
            "    training: {learningRate: 1e-4, numTrainEpochs: 2, gradientAccumulationSteps: 4, packing: true, maxLength: 1024}",
            "    evalSteps: 50",
        ]
        lines += ["    handOver: merge"] if index < stages - 1 else []
    lines += ["  evaluation:", "    suites:"]
    lines += [
        f"    - {{name: suite-{i}, objective: supervised, data: {{uri: 'file://test-{i}.jsonl'}}, metrics: [loss]}}" for i in range(stages)
    ]
    lines += ["    gates:"]
    lines += [f"    - {{suite: suite-{i}, metric: loss, stage: stage-{i}, maxRegression: {{relative: 0.1}}}}" for i in range(stages)]
    return "\n".join(lines) + "\n"


def cpu_seconds(arguments: list[str], folder: Path) -> float:
    """User and system time of one process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(repeats: int = REPEATS) -> dict[str, float]:
    """Least CPU seconds of each case."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "job.yaml").write_text(manifest(STAGES))
        rounds = [{case: cpu_seconds(arguments, folder) for case, arguments in CASES.items()} for _ in range(repeats)]
    return {case: min(seen[case] for seen in rounds) for case in CASES}


def main() -> int:
    """Print the table; 1 where the limit is missed."""
    found = measure()
    for case, seconds in found.items():
        print(f"{case:<32} {seconds:6.3f} s of CPU")
    held = found["finetune validate, ten stages"] <= LIMIT_SECONDS
    print(f"limit {LIMIT_SECONDS} s: {'held' if held else 'missed'}")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
