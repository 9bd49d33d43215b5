"""What a job trains more than once: an arm is a chain of stages from the base with one seed. Pure.

A job with one seed and no comparison has one arm, and nobody need know. Several seeds make one arm each; a stage with `compareWith: direct`
makes one more a seed, of that stage alone. All arms share the prepared data and the base's measurement, and are walked one after the other.
"""

from __future__ import annotations

from dataclasses import dataclass

from finetune_api.v1alpha1.fine_tune_job import FineTuneJobSpec
from finetune_api.v1alpha1.stage import Stage


@dataclass(frozen=True)
class Arm:
    """A chain of stages with a seed."""

    index: int
    """Its place in the order of work, from 0."""
    name: str
    """Of its folder in the run folder: `seed-2`, `seed-2-direct`."""
    words: str
    """For people: `seed 2`, `seed 2, direct`; `staged` and `direct` where there is one seed; empty where there is one arm."""
    seed: int
    stages: tuple[Stage, ...]
    first: int = 0
    """Index in the job of its first stage: what is drawn in a stage is the same with and without the stages before it."""

    @property
    def direct(self) -> bool:
        """Whether it leaves out the stages before the one that it trains."""
        return self.first > 0


def arms(spec: FineTuneJobSpec) -> tuple[Arm, ...]:
    """Return the arms in the order of work: every seed's stages, then every seed's comparison."""
    stages, seeds = tuple(spec.stages), spec.every_seed
    at = compared(spec)
    words = [(seed, f"seed {seed}" if len(seeds) > 1 else "staged" if at is not None else "") for seed in seeds]
    staged = [Arm(index, f"seed-{seed}", text, seed, stages) for index, (seed, text) in enumerate(words)]
    if at is None:
        return tuple(staged)
    texts = [f"seed {seed}, direct" if len(seeds) > 1 else "direct" for seed in seeds]
    one = (stages[at].model_copy(update={"hand_over": None}),)
    direct = [Arm(len(seeds) + index, f"seed-{seed}-direct", texts[index], seed, one, first=at) for index, seed in enumerate(seeds)]
    return (*staged, *direct)


def compared(spec: FineTuneJobSpec) -> int | None:
    """Return the index of the stage that is compared with training it directly."""
    return next((index for index, stage in enumerate(spec.stages) if stage.compare_with is not None), None)


def words(spec: FineTuneJobSpec, arm: int | None) -> str:
    """Return what a report's arm is called; nothing where the job has one, or no such arm."""
    if arm is None:
        return ""
    every = arms(spec)
    return every[arm].words if arm < len(every) else ""


def placed(arm: str, text: str) -> str:
    """Return what is at work behind the words of the arm that it is at work for: `seed 2, direct: task`."""
    return f"{arm}: {text}" if arm else text
