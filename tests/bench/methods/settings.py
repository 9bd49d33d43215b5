"""The rows of the methods table. Adding one is a line here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

DEFINITIONS: Final = "definitions"
CLASSES: Final = "classes"
BOTH: Final = (CLASSES, DEFINITIONS)

FACTORS: Final = {DEFINITIONS: (3.0, 10.0), CLASSES: (10.0, 30.0)}
"""Of the method's default rate; the same for every method of a task. Few steps want high rates, and a new head higher ones."""
AGGRESSIVE: Final = 15.0
"""Of full tuning's default rate: 3e-4, which nobody would choose who has something to lose."""
REPLAYED: Final = 0.2
"""Share of the tokens that are replayed, where a row has replay."""

Options = Mapping[str, Any]


@dataclass(frozen=True)
class Setting:
    """A row: a method with its options, and what guards it."""

    name: str
    type: str
    options: Options = field(default_factory=dict)
    on: Mapping[str, Options] = field(default_factory=dict)
    """Options that depend on the task's model."""
    tasks: tuple[str, ...] = BOTH
    guards: tuple[Options, ...] = ()
    training: Options = field(default_factory=dict)
    replay: float = 0.0
    """Share of the tokens that are replayed; the steps stay as many."""
    factor: float | None = None
    """A rate that is fixed, as a factor of the method's default."""
    rate_of: str | None = None
    """A row whose rate this one has too: with a guard, the rate of the row without."""

    def method(self, task: str) -> dict[str, Any]:
        """The method as a manifest has it."""
        options = {**self.options, **self.on.get(task, {})}
        return {"type": self.type, **({self.type: options} if options else {})}


def _aggressive(name: str, *guards: Options, replay: float = 0.0) -> Setting:
    """Full tuning at a rate that forgets, and what holds it back: a guard on top, everything else as it was."""
    return Setting(f"full, aggressive{name}", "full", guards=guards, replay=replay, factor=AGGRESSIVE, tasks=(DEFINITIONS,))


START: Final = Setting("before the task", "lora", tasks=(DEFINITIONS,), factor=1.0)
"""What every definitions row begins with: it is measured, and not trained."""
SETTINGS: Final[tuple[Setting, ...]] = (
    START,
    Setting("lora", "lora"),
    Setting("full", "full"),
    _aggressive(""),
    _aggressive(" + l2sp", {"type": "l2sp", "strength": 1.0}),
    _aggressive(" + kl", {"type": "kl", "strength": 1.0}),
    _aggressive(" + l2sp 10", {"type": "l2sp", "strength": 10.0}),
    _aggressive(" + kl 10", {"type": "kl", "strength": 10.0}),
    _aggressive(" + replay", replay=REPLAYED),
    Setting("gradual", "gradual", on={DEFINITIONS: {"everySteps": 2, "layers": 8}, CLASSES: {"everySteps": 12}}),
    Setting("partial, last third", "partial", on={
        DEFINITIONS: {"trained": ["model.layers.2?.*", "model.norm.weight"]}, CLASSES: {"trained": ["*encoder.layer.[45].*", "classifier.*"]},
    }),
    Setting("headOnly", "headOnly", tasks=(CLASSES,)),
    Setting("lora, pissa", "lora", {"initialization": "pissa"}),
    Setting("lora, dora", "lora", {"dora": True}),
    Setting("lora, r 64, rsLora", "lora", {"r": 64, "rsLora": True}),
    Setting("adalora", "adalora", {"interval": 2}),
    Setting("vera", "vera"),
    Setting("oft", "oft"),
    Setting("fourierft", "fourierft"),
    Setting("gralora", "gralora"),
    # Its scores are there after ten steps, as many as definitions has.
    Setting("aflora", "aflora", {"initialSteps": 2, "finalShare": 0.3}, tasks=(CLASSES,)),
    Setting("adapter", "adapter"),
    Setting("ia3", "ia3"),
    Setting("lnTuning", "lnTuning"),
    Setting("promptTuning", "promptTuning", {"numVirtualTokens": 16}),
    Setting("prefixTuning", "prefixTuning", {"numVirtualTokens": 16}),
    Setting("lora + kl", "lora", guards=({"type": "kl", "strength": 1.0},), rate_of="lora", tasks=(DEFINITIONS,)),
    Setting("lora + l2sp", "lora", guards=({"type": "l2sp", "strength": 1.0},), rate_of="lora"),
    Setting("lora + replay", "lora", replay=REPLAYED, rate_of="lora", tasks=(DEFINITIONS,)),
    Setting("full, layer decay 0.9", "full", {"layerDecay": 0.9}),
    Setting("loha", "loha"),
    Setting("lokr", "lokr"),
    Setting("full + l2sp", "full", guards=({"type": "l2sp", "strength": 1.0},), rate_of="full", tasks=(CLASSES,)),
    Setting("full + mixout", "full", guards=({"type": "mixout", "probability": 0.5},), rate_of="full", tasks=(CLASSES,)),
    _aggressive(" + mixout", {"type": "mixout", "probability": 0.5}),
    _aggressive(" + ewc", {"type": "ewc", "strength": 10_000, "samples": 8}, replay=0.05),
    Setting("qlora", "qlora"),
    Setting("lora, eva", "lora", {"initialization": "eva"}),
    Setting("c3a", "c3a", {"blockSize": 64}),
    Setting("pTuning", "pTuning", {"numVirtualTokens": 16}),
)  # fmt: skip
"""In the order in which they are measured: where time runs out, the last ones lack."""
BY_NAME: Final = {setting.name: setting for setting in SETTINGS}
