"""What a stage notices of its own training, told as a sentence when it begins and when it is over, and with every report in between.

Nothing of it is in a checkpoint: a resumed stage reads its recorded curve, and stands where it stood.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

from finetune_api.constants import NOTICE_HINTS, NoticeReason
from finetune_api.v1alpha1.stage import Stage
from finetune_api.wire import Activity, Notice
from finetune_trainer.checkpoint.steplog import lines
from finetune_trainer.diagnosis import Change, Diagnosis
from finetune_trainer.engine.waiting import WINDOW_SECONDS, DataShare
from finetune_trainer.progress import Reporter

OVER: Final = {
    NoticeReason.DATA_BOUND: "training no longer waits for its data",
    NoticeReason.LOSS_RISING: "the training loss is back where it had risen from",
    NoticeReason.LOSS_FLAT: "the training loss falls",
    NoticeReason.GAP_OPENING: "the validation loss is back near its lowest",
}


class StageNotices:
    def __init__(
        self,
        stage: Stage,
        diagnosis: Diagnosis,
        *,
        total_steps: int,
        reporter: Reporter,
        clock: Callable[[], float],
        record: Callable[[int, str | None], None] = lambda step, text: None,
    ) -> None:
        """record: is told the step at which training began to wait for its data, and in which words; None: it no longer does. All else can be
        read from the curve."""
        self._record = record
        self._stage = stage
        self._diagnosis = diagnosis
        self._total = total_steps
        self._reporter = reporter
        self._clock = clock
        self._waiting = DataShare()
        self._bound: Notice | None = None
        self._since = clock()

    def restore(self, curve: Path) -> None:
        """Take what an earlier process has recorded: it was told then."""
        for _, line in lines(curve):
            self._diagnosis.take(json.loads(line))

    def start(self) -> None:
        """Steps begin, or go on after something else."""
        self._since = self._clock()

    def stepped(self, step: int, waited: float) -> None:
        """A step ended. waited: its seconds of waiting for data."""
        now = self._clock()
        seconds, self._since = now - self._since, now
        if self._waiting.add(seconds, waited):
            self._data_bound(step)

    def logged(self, step: int, loss: float) -> None:
        """A point of the training loss was recorded."""
        self._tell(self._diagnosis.logged(step, loss))

    def measured(self, step: int, loss: float) -> None:
        """A validation loss was recorded."""
        self._tell(self._diagnosis.measured(step, loss))

    def ended(self) -> None:
        """The last step is done: nothing waits for data any more."""
        self._bound = None

    def standing(self) -> list[Notice]:
        """Everything that is so now."""
        return [*([self._bound] if self._bound is not None else []), *self._diagnosis.notices()]

    def _data_bound(self, step: int) -> None:
        share, reason = self._waiting.bound, NoticeReason.DATA_BOUND
        batch = self._stage.training.batch_rows
        self._bound = None
        if share is not None:
            text = (
                f"stage {self._stage.name}: training waited for its data for {share:.0%} of the last {WINDOW_SECONDS / 60:.0f} minutes. "
                f"{NOTICE_HINTS[reason]} {2 * batch} (twice it)."
            )
            self._bound = Notice(reason=reason, message=text)
        self._record(step, self._bound.message if self._bound is not None else None)
        self._tell([Change(step, reason, self._bound)])

    def _tell(self, found: Iterable[Change]) -> None:
        for change in found:
            over = f"stage {self._stage.name}, step {change.step}: {OVER[change.reason]}"
            told: dict[str, Any] = {"message": f"warning: {change.notice.message}" if change.notice is not None else over}
            self._reporter.report(
                Activity.TRAIN, stage=self._stage.name, done=change.step, total=self._total, notices=self.standing(), **told
            )
