"""Parameters that a manifest names by patterns: shell globs over their names in the plain model."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from finetune_api.constants import Reason
from finetune_trainer.errors import TrainerError


def matching(model: nn.Module, patterns: Sequence[str], *, where: str) -> set[str]:
    """The names of the parameters that match any of the patterns.

    Raises TrainerError for patterns without a match, each with the nearest names, or with the name under which a tied weight is trained.
    """
    names = [name for name, _ in model.named_parameters()]
    found: set[str] = set()
    idle: list[str] = []
    for pattern in patterns:
        hits = [name for name in names if fnmatchcase(name, pattern)]
        found.update(hits)
        if not hits:
            idle.append(f"{pattern!r} {_why_nothing(model, names, pattern)}")
    if idle:
        raise TrainerError(Reason.INVALID_SPEC, "; ".join(idle), where=where)
    return found


def _why_nothing(model: Any, names: Sequence[str], pattern: str) -> str:
    owners = {id(parameter): name for name, parameter in model.named_parameters()}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if name != owners[id(parameter)] and fnmatchcase(name, pattern):
            return (
                f"matches {name} alone, which is tied to {owners[id(parameter)]}: one weight, that cannot be chosen for one of its two uses; "
                f"write {owners[id(parameter)]} where both are meant"
            )
    near = difflib.get_close_matches(pattern, names, n=3, cutoff=0.4) or list(names[:3])
    return f"matches no parameter; near it are {', '.join(near)}"
