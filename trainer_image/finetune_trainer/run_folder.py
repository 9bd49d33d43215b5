"""The run folder: where everything of a run lies, the same on a laptop and on a volume.

run.json               identity: job, configHash, threads; another manifest's run is refused
lock                   held (flock) by the live run
prepared/              tokenised rows and the data report, by content key; prepare.json points to the current ones
epochs/0001/           one start of a trainer, fenced: only its own process writes in it
    lineage.json       the epoch and checkpoint that it started from
    stages/0-domain/checkpoint-00000040/   …/handover/   what the next stage starts from
                    curve.jsonl samples.jsonl   a line a step; copied from the parent epoch, cut to the committed step, at resume
journal.jsonl          starts, commits, evaluations, ends: one line each, appended
evaluation/            base.json, 0-domain.json, …: results with their intervals
arms/seed-1/ …         only of a job that trains several arms: epochs, journal.jsonl and evaluation of each lie there instead
arms.json              what the arms came to together: the seed that is published, figures over seeds, the comparison
artifacts/             adapter/ merged/ README.md (model card) provenance.json report.html: written after the gates
logs/                  a log a process
hub/                   what came from the hub, in a pod: prepare's own disk is gone when training starts
result.json            how the last process ended
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunFolder:
    """Paths only; nothing is created or read here."""

    root: Path

    @property
    def identity(self) -> Path:
        return self.root / "run.json"

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    @property
    def prepared(self) -> Path:
        return self.root / "prepared"

    @property
    def prepare_report(self) -> Path:
        return self.root / "prepare.json"

    @property
    def epochs(self) -> Path:
        return self.root / "epochs"

    @property
    def journal(self) -> Path:
        return self.root / "journal.jsonl"

    @property
    def evaluation(self) -> Path:
        return self.root / "evaluation"

    @property
    def arms(self) -> Path:
        return self.root / "arms"

    @property
    def arms_result(self) -> Path:
        return self.root / "arms.json"

    @property
    def artifacts(self) -> Path:
        return self.root / "artifacts"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def hub(self) -> Path:
        return self.root / "hub"

    @property
    def result(self) -> Path:
        return self.root / "result.json"
