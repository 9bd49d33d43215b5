"""Which hand-over is legal between which methods (docs/explanation of the words: continue, merge, stack).

continue: what changes the weights themselves before anything; an adapter before itself with an identical configuration. merge: what can be
folded into the weights, before anything. stack: lora before lora. Which method is which stands in the support table.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final

from finetune_api.v1alpha1.method import TABLE
from finetune_api.v1alpha1.methods.lora import Lora, LoraInitialization
from finetune_api.v1alpha1.rules.rule import POSITIONS, Rule, either
from finetune_api.v1alpha1.support import Continues


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
    """Compare one option; an enum by each of its values, for the same reason, and one without a default as it is written."""
    if default is None:
        ours, theirs = (f"{owner}.method.?lora.?{name}.hasValue()" for owner in ("it", "next"))
        return f"{ours} == {theirs} && (!{ours} || it.method.lora.{name} == next.method.lora.{name})"
    ours, theirs = _lora_option("it", name, default), _lora_option("next", name, default)
    if isinstance(default, str):
        return " && ".join(f"({ours} == '{value}') == ({theirs} == '{value}')" for value in LoraInitialization)
    return f"{ours} == {theirs}"


_APART: Final = ("targetModules", "loraPlusRatio", "initializationRows", "rho", "cordaMode")
"""Compared by itself; and how fast a part learns, and how a start was looked for, which are no part of what is trained on."""

SAME_LORA: Final = " && ".join(
    [*(_same_option(name, default) for name, default in _defaults().items() if name not in _APART), _same_targets()]
)
"""Whether `it` and `next` train adapters of one configuration, defaults filled in."""


ADAPTERS: Final = [method for method, row in TABLE.items() if row.adapter]
MERGED: Final = [method for method, row in TABLE.items() if row.merges]
UNFOLDED: Final = [method for method, row in TABLE.items() if not row.folds]
STACKED: Final = [method for method, row in TABLE.items() if row.stacks]
SCALED: Final = [method for method, row in TABLE.items() if row.scales]
ENDED: Final = [method for method, row in TABLE.items() if row.continues is Continues.NOTHING]


def _pair(handed: str, holds: str, message: str, instead: str, *, unnamed: bool = False) -> Rule:
    condition = f"!has(it.handOver) || it.handOver != '{handed}' || {holds}"
    return Rule(scopes=("spec",), each="stages[+1]", field="handOver", holds=condition, message=message, instead=instead, unnamed=unnamed)


_SCALES: Final = {"handOverScale": "has(it.handOverScale)", "handOverScaleBy": "has(it.handOverScaleBy)"}
"""How much of a change is handed over: the fields, and whether they are written."""


def _scaled(each: str, holds: str, message: str, instead: str, fields: tuple[str, ...] = tuple(_SCALES)) -> Iterator[Rule]:
    """One rule for each way to say how much, so that the one that is written is blamed."""
    for field in fields:
        words = instead.format(field)
        condition = f"!{_SCALES[field]} || ({holds})"
        yield Rule(scopes=("spec",), each=each, field=field, holds=condition, message=message, instead=words, unnamed=True)


def _at(position: str, field: str, default: str) -> str:
    return f"self.stages[{position}].{field}.orValue({default})"


_NONE: Final = "''"
_MERGES: Final = _at("j", "?handOver", _NONE) + " == 'merge'"
_IN_LAST_CHAIN: Final = f"i < size(self.stages) && !{POSITIONS}.exists(j, j >= i && j + 1 < size(self.stages) && {_MERGES})"
"""Whether no merge follows stage number `i`: its adapter is then part of what the last stage leaves."""
_STACKS: Final = f"{POSITIONS}.exists(i, {_IN_LAST_CHAIN} && {_at('i', '?handOver', _NONE)} == 'stack')"
_WITH_DORA: Final = " || ".join(_at("i", f"method.?{method}.?dora", "false") for method in STACKED)
_STACK_WITH_DORA: Final = f"{_STACKS} && {POSITIONS}.exists(i, {_IN_LAST_CHAIN} && ({_WITH_DORA}))"

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
        f"!({either('it.method.type', [method for method in MERGED if method not in ENDED])}) || it.method.type == next.method.type",
        "an adapter cannot continue as another method",
        "write handOver: merge, which folds the adapter in first",
    ),
    _pair(
        "continue",
        f"!({either('it.method.type', UNFOLDED)}) || it.method.type == next.method.type",
        "what this method learned goes with the base only as it is, and no other method can train it on",
        "make the next stage's method the same, or this stage the last",
    ),
    _pair(
        "continue",
        f"!({either('it.method.type', ENDED)})",
        "this method's own schedule has ended with its stage",
        "write handOver: merge",
    ),
    _pair(
        "continue",
        f"it.method.type != 'lora' || next.method.type != 'lora' || ({SAME_LORA})",
        "continue trains the same adapter on, and the next stage's lora has other options",
        "write handOver: merge or handOver: stack, or make both lora blocks equal",
        unnamed=True,
    ),
    _pair(
        "continue",
        f"it.method.type == 'lora' || !({either('it.method.type', ADAPTERS)}) || it.method.type != next.method.type || it.method == next.method",
        "continue trains the same adapter on, and the next stage's method has other options",
        "write both methods alike, or handOver: merge where it can be merged",
    ),
    _pair(
        "merge",
        either("it.method.type", ADAPTERS),
        "there is no adapter to merge: this method changes the weights themselves",
        "write handOver: continue",
    ),
    _pair(
        "merge",
        f"!({either('it.method.type', UNFOLDED)})",
        "what this method learned cannot be folded into the base's weights",
        "write handOver: continue and the same method in the next stage, or make this stage the last",
    ),
    _pair(
        "stack",
        either("it.method.type", ADAPTERS),
        "there is no adapter to stack upon: this method changes the weights themselves",
        "write handOver: continue",
    ),
    _pair(
        "stack",
        f"!({either('it.method.type', [method for method in ADAPTERS if method not in STACKED])})",
        f"only {' and '.join(STACKED)} can be stacked upon: of other kinds a sum is no adapter of the kind",
        "write handOver: merge, or handOver: continue and the same method where it cannot be merged",
    ),
    _pair(
        "stack",
        f"!({either('it.method.type', STACKED)}) || {either('next.method.type', STACKED)}",
        f"only {' and '.join(STACKED)} can be stacked on {' or '.join(STACKED)}",
        "write handOver: merge, or make the next stage's method lora",
    ),
    *_scaled("stages[-1]", "false", "the last stage hands over to nobody", "leave {} out"),
    *_scaled(
        "stages[+1]",
        "!has(it.handOverScaleBy)",
        "the share is given or chosen",
        "write handOverScale or handOverScaleBy",
        ("handOverScale",),
    ),
    *_scaled(
        "stages[+1]",
        either("it.method.type", SCALED),
        "this method makes no change of the model's weights of which a part could be handed over",
        "leave {} out",
    ),
    *_scaled(
        "stages[+1]",
        f"!has(it.handOver) || it.handOver == 'merge' || !({either('it.method.type', MERGED)})",
        "an adapter that stays one is handed over whole",
        "write handOver: merge, or leave {} out",
    ),
    *_scaled(
        "stages[+1]",
        "next.objective != 'classification'",
        "before the next stage trains its new head, its loss says nothing",
        "write handOverScale with a number",
        ("handOverScaleBy",),
    ),
    *_scaled(
        "stages[+1]",
        "has(next.data.validation)",
        "the share is chosen on the next stage's validation rows, and it has none",
        "add data.validation to the next stage, or write handOverScale with a number",
        ("handOverScaleBy",),
    ),
    Rule(
        scopes=("spec",),
        each="output",
        field="format",
        holds=f"!has(it.format) || !('adapter' in it.format) || {either('self.stages[size(self.stages) - 1].method.type', ADAPTERS)}",
        message="the last stage makes no adapter",
        instead="write format: [merged], or make the last stage's method lora",
    ),
    Rule(
        scopes=("spec",),
        each="output",
        field="format",
        holds=f"!has(it.format) || !('merged' in it.format) || !({either('self.stages[size(self.stages) - 1].method.type', UNFOLDED)})",
        message="what the last stage learns cannot be folded into the base's weights",
        instead="write format: [adapter], or leave it out",
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
