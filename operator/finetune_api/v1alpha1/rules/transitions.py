"""What may change after a job was created: suspension, the time to live, and budgets, which may be raised. Everything else is fixed, since
a running job's checkpoints belong to it."""

from __future__ import annotations

from typing import Final

from finetune_api.v1alpha1.rules.rule import Rule

_REQUIRED: Final = ("model", "stages")
_OPTIONAL: Final = ("runtimeRef", "tokenizer", "references", "seed", "seeds", "evaluation", "output")
_ATTEMPTS, _PREEMPTIONS = 3, 20


def _fixed(field: str, holds: str) -> Rule:
    return Rule(
        scopes=("spec",),
        field=field,
        holds=holds,
        message="a job is fixed from its creation",
        instead="make a new job (only suspend, ttlSecondsAfterFinished and higher budgets may be changed)",
        transition=True,
    )


def _raised(field: str, default: int) -> Rule:
    return Rule(
        scopes=("spec",),
        field="retry",
        holds=f"self.?retry.?{field}.orValue({default}) >= oldSelf.?retry.?{field}.orValue({default})",
        message=f"{field} may be raised, not lowered",
        instead="write at least the number that was there",
        transition=True,
    )


RULES: Final = (
    *(_fixed(field, f"self.{field} == oldSelf.{field}") for field in _REQUIRED),
    *(_fixed(f, f"has(self.{f}) == has(oldSelf.{f}) && (!has(self.{f}) || self.{f} == oldSelf.{f})") for f in _OPTIONAL),
    _raised("maxAttempts", _ATTEMPTS),
    _raised("maxPreemptions", _PREEMPTIONS),
    Rule(
        scopes=("spec",),
        field="activeDeadlineSeconds",
        holds="!has(self.activeDeadlineSeconds) || (has(oldSelf.activeDeadlineSeconds) && self.activeDeadlineSeconds >= oldSelf.activeDeadlineSeconds)",
        message="the deadline may be raised or taken away, not lowered",
        instead="write at least the number that was there, or leave it out",
        transition=True,
    ),
)
