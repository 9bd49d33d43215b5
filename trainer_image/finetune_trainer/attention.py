"""A Reporter between the parts of a run and whoever is told: it beats the pulse, knows what the run is doing, and says with every report
what the trainer notices of itself.

What a stage notices it hands over with its reports (`notices`), and it stands until the next that says something of it. Silence is noticed
by the watchdog, from its own thread, in whose words the run's last report is told again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from finetune_api.constants import NOTICE_HINTS, REASONS, ExitCode, NoticeReason, Reason
from finetune_api.wire import Activity, Notice, RunResult
from finetune_trainer.progress import Reporter
from finetune_trainer.pulse import PULSE, Pulse
from finetune_trainer.watchdog import Hang

MOMENTS: Final = frozenset({Activity.SAVE, Activity.HAND_OVER})
"""Done in between: whoever follows a run wants to know what it was for."""
ONCE: Final = ("message", "metrics")
"""Fields that tell what happened, and are not true a second time."""


class Attentive:
    """Passes every report on. `report` is called by the training thread, and by the one that saves; the rest by the watchdog's."""

    def __init__(self, reporter: Reporter, pulse: Pulse = PULSE, *, record: Callable[[str], None] = lambda text: None) -> None:
        """record: is told of each silence that ended by itself, for the report. Called by the watchdog's thread."""
        self._record = record
        self._silent_at: tuple[datetime, str] | None = None
        self._reporter = reporter
        self._pulse = pulse
        self._noticed: tuple[Notice, ...] = ()
        self._silence: tuple[Notice, ...] = ()
        self._doing: tuple[Activity, dict[str, Any]] = (Activity.LOAD, {})
        self._moment = Activity.LOAD

    def report(self, activity: Activity, **fields: Any) -> None:
        self._pulse.beat()
        self._moment = activity
        noticed: Sequence[Notice] | None = fields.pop("notices", None)
        if noticed is not None:
            self._noticed = tuple(noticed)
        if activity not in MOMENTS:
            self._doing = (activity, fields)
        elif activity is Activity.SAVE and self._doing[0] is Activity.TRAIN:
            # Not every step is reported, but what is saved was done; a save beside the training may be told late.
            before = self._doing[1]
            self._doing = (Activity.TRAIN, before | {"done": max(before.get("done", 0), fields["done"])})
        self._reporter.report(activity, **fields, notices=[*self._silence, *self._noticed])

    def activity(self) -> Activity:
        """What the run is doing."""
        return self._moment

    def silent(self, seconds: float | None, limit: float) -> None:
        """Tell that nothing has advanced for so long, and after how long that ends the process; None: that it goes on."""
        first, activity, fields = not self._silence, *self._doing
        text = None
        if seconds is None:
            self._silence, text = (), f"{self._place()} advances again"
            if self._silent_at is not None:
                (since, place), self._silent_at = self._silent_at, None
                self._record(f"{place}: nothing advanced for {duration((datetime.now(UTC) - since).total_seconds())}")
        else:
            since = datetime.fromtimestamp(datetime.now(UTC).timestamp() - seconds, UTC)
            if first:
                self._silent_at = (since, self._place())
                text = f"{self._place()}: nothing has advanced since {since:%H:%M:%S} UTC. {NOTICE_HINTS[NoticeReason.NO_PROGRESS]}"
                text += f" After {duration(limit)} it ends itself, and what it has saved is gone on from."
                self._silence = (Notice(reason=NoticeReason.NO_PROGRESS, message=text),)
                text = f"warning: {text}"
        told = {name: value for name, value in fields.items() if name not in ONCE}
        self._reporter.report(activity, **told, message=text, notices=[*self._silence, *self._noticed])

    def hangs(self, hang: Hang) -> RunResult:
        """How a process ends in which nothing advances any more."""
        activity, fields = self._doing
        step = fields.get("done") if activity is Activity.TRAIN else None
        return RunResult(
            outcome="Failed",
            exit_code=ExitCode.STALLED,
            reason=Reason.STALLED,
            stage=fields.get("stage"),
            step=step,
            message=f"{self._place()}: nothing has advanced for {duration(hang.seconds)}; {hang.where}",
            hint=REASONS[Reason.STALLED].hint,
        )

    def _place(self) -> str:
        """Examples: `train domain, after step 40`, `save domain, after step 40`, `evaluate knowledge, after 120 rows`, `load`."""
        _, fields = self._doing
        named = [str(fields[name]) for name in ("stage", "suite") if fields.get(name)]
        done, unit = fields.get("done"), fields.get("unit", "steps")
        after = f", after step {done}" if unit == "steps" else f", after {done} {unit}"
        return " ".join([self._moment.value, *named]) + (after if done else "")


def duration(seconds: float) -> str:
    """`45 s`, `30 min`, `1 h 30 min`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return " ".join(part for part in (f"{hours} h" if hours else "", f"{minutes} min" if minutes or not hours else "") if part)
