"""What a run is doing, in words. Pure: from ProgressReports to text; `view.py` puts it on a screen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from finetune_api.arms import placed
from finetune_api.wire import Activity, ProgressReport

VALIDATION = "validation"
"""What the trainer calls the rows of data.validation, which are measured while a stage trains."""


@dataclass
class Track:
    """The state of the progress line: the newest report, and figures that stay until newer ones come."""

    stages: list[str]
    arms: Sequence[str] = ()
    """What the job trains more than once, in words (`finetune_api.arms`)."""
    percent: float = 0.0
    """Share of the whole job; it never goes back."""
    report: ProgressReport | None = None
    _doing: tuple[Activity, int | None, str | None, str | None] | None = None
    _kept: dict[str, float] = field(default_factory=dict)

    def update(self, report: ProgressReport) -> bool:
        """Take a report; True where something new began: an activity, a stage, a suite. A save is an episode, not a beginning."""
        self.report = report
        if report.percent is not None:
            self.percent = max(self.percent, min(report.percent, 100.0))
        began = report.activity is not Activity.SAVE and self._doing != (report.activity, report.arm, report.stage, report.suite)
        if began:
            self._doing = (report.activity, report.arm, report.stage, report.suite)
            self._kept = {}
        for name in ("loss", "learning_rate", "tokens_per_second"):
            value = getattr(report, name)
            if value is not None:
                self._kept[name] = value
        return began

    def headline(self) -> str:
        """Examples: `training domain (stage 1 of 2)`, `seed 2: training domain (stage 1 of 2)`."""
        if self.report is None:
            return "starting"
        arm = self.report.arm
        return placed(self.arms[arm] if arm is not None and arm < len(self.arms) else "", self._headline(self.report))

    def _headline(self, report: ProgressReport) -> str:
        stage, suite = report.stage, report.suite
        place = f" (stage {self.stages.index(stage) + 1} of {len(self.stages)})" if stage in self.stages else ""
        named = f" {stage}" if stage else ""
        match report.activity:
            case Activity.PREPARE:
                return f"preparing data{f' of {stage}' if stage else ''}"
            case Activity.LOAD:
                return f"loading the model{f' for {stage}' if stage else ''}{place}"
            case Activity.EVALUATE if suite == VALIDATION and stage:
                return f"validating {stage}{place}"
            case Activity.EVALUATE:
                who = f"after {stage}" if stage in self.stages else "base"
                return f"evaluating {who}{f' on {suite}' if suite else ''}"
            case Activity.TRAIN:
                return f"training{named}{place}"
            case Activity.SAVE:
                return f"saving{named}{place}"
            case Activity.HAND_OVER:
                return f"handing over{f' after {stage}' if stage else ''}"
            case Activity.PUBLISH:
                return "publishing the model and its report"

    def details(self) -> list[str]:
        """Examples: `step 40 of 120`, `loss 0.812`, `learning rate 2e-05`, `5,120 tokens/s`."""
        if self.report is None:
            return []
        parts = []
        if self.report.total or self.report.done:
            parts.append(amount(self.report.done, self.report.total, self.report.unit))
        if "loss" in self._kept:
            parts.append(f"loss {self._kept['loss']:.4g}")
        if "learning_rate" in self._kept:
            parts.append(f"learning rate {self._kept['learning_rate']:.3g}")
        if "tokens_per_second" in self._kept:
            parts.append(f"{self._kept['tokens_per_second']:,.0f} tokens/s")
        return parts

    def left(self) -> str:
        """Example: `4:12 left`; empty where nobody knows."""
        eta = self.report.eta_seconds if self.report else None
        return f"{duration(eta)} left" if eta is not None else ""


def duration(seconds: float) -> str:
    """`0:07`, `4:12`, `1:02:33`."""
    whole = max(int(seconds + 0.5), 0)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def amount(done: int, total: int | None, unit: str) -> str:
    """`step 40 of 120`, `500 of 1,000 rows`, `1.5 MiB of 1.0 GiB`."""
    if unit == "bytes":
        return size(done) + (f" of {size(total)}" if total else "")
    count = f"{done:,}" + (f" of {total:,}" if total else "")
    return f"step {count}" if unit == "steps" else f"{count} {unit}"


def size(count: float) -> str:
    """`4.0 KiB`."""
    units = ["KiB", "MiB", "GiB", "TiB"]
    if count < 1024:
        return f"{count:.0f} bytes"
    while count >= 1024 and units:
        count, unit = count / 1024, units.pop(0)
    return f"{count:.1f} {unit}"
