"""Partial: parameters chosen by patterns of their names."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from finetune_api.constants import Reason
from finetune_trainer.errors import TrainerError
from finetune_trainer.methods.base import Method, Setting
from finetune_trainer.methods.freezing import train_only


def chosen(setting: Setting) -> set[str]:
    """What `trained` names, or all but what `frozen` names.

    Raises TrainerError(InvalidSpec) where a pattern matches nothing, nothing is left to train, or a new weight would stay random.
    """
    options, plain, where = setting.stage.method.partial, setting.plain, setting.field()
    if options is None or (options.trained is None) == (options.frozen is None):
        raise TrainerError(Reason.INVALID_SPEC, "write one of the two lists `trained` and `frozen`", where=where)
    names = [name for name, _ in plain.model.named_parameters()]
    if options.trained is not None:
        trained = matching(names, options.trained, where=f"{where}.trained")
    else:
        trained = set(names) - matching(names, options.frozen or [], where=f"{where}.frozen")
    if not trained:
        raise TrainerError(Reason.INVALID_SPEC, "these patterns freeze every parameter of the model: nothing would be trained", where=where)
    random = sorted(plain.new - trained)
    if random:
        raise TrainerError(
            Reason.INVALID_SPEC,
            f"the model has no trained weights for {', '.join(random[:4])}, so they start at random and must be trained: "
            f"add {random[0].rsplit('.', 1)[0] + '.*'!r} to `trained`, or take it out of `frozen`",
            where=where,
        )
    return trained


def matching(names: Sequence[str], patterns: Sequence[str], *, where: str) -> set[str]:
    """The names that match any of the shell globs. Raises TrainerError for patterns without a match, each with the nearest names."""
    found: set[str] = set()
    idle: list[str] = []
    for pattern in patterns:
        hits = [name for name in names if fnmatchcase(name, pattern)]
        found.update(hits)
        if not hits:
            near = difflib.get_close_matches(pattern, names, n=3, cutoff=0.4) or list(names[:3])
            idle.append(f"{pattern!r} matches no parameter; near it are {', '.join(near)}")
    if idle:
        raise TrainerError(Reason.INVALID_SPEC, "; ".join(idle), where=where)
    return found


def apply(setting: Setting) -> nn.Module:
    return train_only(setting.plain, chosen(setting), setting.added)


METHOD = Method(apply, check=chosen)
