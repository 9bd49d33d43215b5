"""Which hand-over is legal between which methods (docs/explanation of the words: continue, merge, stack).

continue: full, headOnly and partial before anything; lora before lora with an identical configuration. merge: lora before anything.
stack: lora before lora.
"""

from __future__ import annotations

import json
from typing import Final

from finetune_api.v1alpha1.method import Lora, LoraInitialization
from finetune_api.v1alpha1.rules.rule import POSITIONS, Rule


def _literal(value: object) -> str:
    """Return a default of a model as CEL."""
    return json.dumps(value).replace('"', "'")


def _lora_option(owner: str, name: str, default: object) -> str:
    return f"{owner}.method.?lora.?{name}.orValue({_literal(default)})"


def _defaults() -> dict[str, object]:
    """Return the defaults of a lora block by their names in a manifest; a number is a float where the field is one."""
    return {name: float(value) if name == "alpha" else value for name, value in Lora().model_dump(mode="json").items()}


def _same_targets() -> str:
    """Compare the one list among the options. Written case by case: of `orValue` the API server's cost estimate knows no length."""
    ours, theirs = (f"{owner}.method.?lora.?targetModules.hasValue()" for owner in ("it", "next"))
    left, right = (f"{owner}.method.lora.targetModules" for owner in ("it", "next"))
    default = _literal(_defaults()["targetModules"])
    return f"({ours} ? ({theirs} ? {left} == {right} : {left} == {default}) : (!{theirs} || {right} == {default}))"


def _same_option(name: str, default: object) -> str:
    """Compare one scalar option; an enum by each of its values, for the same reason."""
    ours, theirs = _lora_option("it", name, default), _lora_option("next", name, default)
    if isinstance(default, str):
        return " && ".join(f"({ours} == '{value}') == ({theirs} == '{value}')" for value in LoraInitialization)
    return f"{ours} == {theirs}"


SAME_LORA: Final = " && ".join(
    [*(_same_option(name, default) for name, default in _defaults().items() if name != "targetModules"), _same_targets()]
)
"""Whether `it` and `next` train adapters of one configuration, defaults filled in."""


def _pair(handed: str, holds: str, message: str, instead: str) -> Rule:
    condition = f"!has(it.handOver) || it.handOver != '{handed}' || {holds}"
    return Rule(scopes=("spec",), each="stages[+1]", field="handOver", holds=condition, message=message, instead=instead)


def _at(position: str, field: str, default: str) -> str:
    return f"self.stages[{position}].{field}.orValue({default})"


_NONE: Final = "''"
_MERGES: Final = _at("j", "?handOver", _NONE) + " == 'merge'"
_IN_LAST_CHAIN: Final = f"i < size(self.stages) && !{POSITIONS}.exists(j, j >= i && j + 1 < size(self.stages) && {_MERGES})"
"""Whether no merge follows stage number `i`: its adapter is then part of what the last stage leaves."""
_STACKS: Final = f"{POSITIONS}.exists(i, {_IN_LAST_CHAIN} && {_at('i', '?handOver', _NONE)} == 'stack')"
_STACK_WITH_DORA: Final = f"{_STACKS} && {POSITIONS}.exists(i, {_IN_LAST_CHAIN} && {_at('i', 'method.?lora.?dora', 'false')})"

RULES: Final = (
    Rule(
        scopes=("spec",),
        each="stages[+1]",
        field="handOver",
        holds="has(it.handOver)",
        message="a stage that is followed by another must say what the next one starts from",
        instead="write handOver: continue after full, headOnly or partial; handOver: merge or stack after lora",
    ),
    Rule(
        scopes=("spec",),
        each="stages[-1]",
        field="handOver",
        holds="!has(it.handOver)",
        message="the last stage hands over to nobody",
        instead="leave handOver out; output.format says what is published",
    ),
    _pair(
        "continue",
        "it.method.type != 'lora' || next.method.type == 'lora'",
        "an adapter cannot continue as another method",
        "write handOver: merge, which folds the adapter in first",
    ),
    _pair(
        "continue",
        f"it.method.type != 'lora' || next.method.type != 'lora' || ({SAME_LORA})",
        "continue trains the same adapter on, and the next stage's lora has other options",
        "write handOver: merge or handOver: stack, or make both lora blocks equal",
    ),
    _pair(
        "merge",
        "it.method.type == 'lora'",
        "there is no adapter to merge: this method changes the weights themselves",
        "write handOver: continue",
    ),
    _pair(
        "stack",
        "it.method.type == 'lora'",
        "there is no adapter to stack upon: this method changes the weights themselves",
        "write handOver: continue",
    ),
    _pair(
        "stack",
        "it.method.type != 'lora' || next.method.type == 'lora'",
        "only lora can be stacked on lora",
        "write handOver: merge, or make the next stage's method lora",
    ),
    Rule(
        scopes=("spec",),
        each="output",
        field="format",
        holds="!has(it.format) || !('adapter' in it.format) || self.stages[size(self.stages) - 1].method.type == 'lora'",
        message="the last stage makes no adapter",
        instead="write format: [merged], or make the last stage's method lora",
    ),
    Rule(
        scopes=("spec",),
        each="output",
        field="format",
        holds=f"!has(it.format) || !('adapter' in it.format) || !({_STACK_WITH_DORA})",
        message="a stack with DoRA in it cannot be written as one adapter (its scales do not add up)",
        instead="write format: [merged]",
    ),
)
