"""Every cross-field rule of a FineTuneJob, once: the schema's CEL and Python's validation are both made from these."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from finetune_api.cel import BROKEN
from finetune_api.v1alpha1.rules import arms, evaluation, guards, hand_over, methods, sources, training, transitions
from finetune_api.v1alpha1.rules.rule import Rule, Unique, Violation, nodes, to_cel, violations

RULES: Final[tuple[Rule, ...]] = (
    *sources.RULES,
    *methods.RULES,
    *training.RULES,
    *guards.RULES,
    *hand_over.RULES,
    *evaluation.RULES,
    *arms.RULES,
    *transitions.RULES,
)
UNIQUE: Final[tuple[Unique, ...]] = (
    Unique("spec.tokenizer.addTokens"),
    Unique("spec.references.secrets", "name"),
    Unique("spec.references.claims", "name"),
    Unique("spec.seeds"),
    Unique("spec.stages", "name"),
    Unique("spec.stages[].data.labels"),
    *methods.UNIQUE,
    Unique("spec.stages[].regularization", "type"),
    Unique("spec.evaluation.suites", "name"),
    Unique("spec.evaluation.suites[].metrics"),
    Unique("spec.evaluation.suites[].labels"),
    Unique("spec.output.format"),
)


def broken_rules(
    document: dict[str, object],
    old: dict[str, object] | None = None,
    *,
    rules: Sequence[Rule] = RULES,
    unique: Sequence[Unique] = UNIQUE,
) -> Iterator[Violation]:
    """Yield every rule that a manifest breaks: a FineTuneJob's, unless others are given.

    `old` is the object before a change; without it nothing is said about changes.
    """
    for entry in unique:
        yield from _duplicates(entry, document)
    for rule in rules:
        yield from violations(rule, document, old)


def _duplicates(unique: Unique, document: dict[str, object]) -> Iterator[Violation]:
    for path, items in nodes(document, unique.path):
        seen: dict[object, int] = {}
        for index, item in enumerate(items if isinstance(items, list) else []):
            name = item.get(unique.key) if unique.key and isinstance(item, dict) else item
            if name is None or name is BROKEN or isinstance(name, dict | list):
                continue
            if name in seen:
                first = f"{path.rpartition('.')[2]}[{seen[name]}]"
                if unique.key:
                    message, instead = f"this {unique.key} is taken by {first}", f"write another {unique.key}, or take one of the two out"
                    yield Violation(f"{path}[{index}].{unique.key}", message, instead, found=name)
                else:
                    yield Violation(f"{path}[{index}]", f"{first} says this already", "take one of the two out", found=name)
            seen.setdefault(name, index)


__all__ = ["RULES", "UNIQUE", "Rule", "Unique", "Violation", "broken_rules", "nodes", "to_cel", "violations"]
