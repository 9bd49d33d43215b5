"""Rules about methods, made from the support table: whose options are written, which objectives it can have, what a result may be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from finetune_api.v1alpha1.method import TABLE
from finetune_api.v1alpha1.methods.common import Targeted
from finetune_api.v1alpha1.rules.rule import Rule, Unique, either

STAGE: Final = "spec.stages[]"
METHOD: Final = "spec.stages[].method"


def _own_options(name: str, required: str) -> Iterator[Rule]:
    yield Rule(
        scopes=(METHOD,),
        field=name,
        holds=f"!has(self.{name}) || self.type == '{name}'",
        message=f"these options are for type: {name}",
        instead=f"write type: {name}, or leave the block {name} out",
    )
    if required:
        yield Rule(
            scopes=(METHOD,),
            field="type",
            holds=f"self.type != '{name}' || has(self.{name})",
            message=f"{name} does not say what it shall train",
            instead=f"add {required}",
        )


def _objectives() -> Iterator[Rule]:
    """One rule for each reason, over all methods and objectives that it is given for."""
    cells: dict[str, list[tuple[str, str]]] = {}
    for method, row in TABLE.items():
        for objective, refusal in row.refused_objectives():
            cells.setdefault(f"{refusal.why} ({refusal.because})", []).append((method, objective))
    for why, refused in cells.items():
        methods, objectives = (list(dict.fromkeys(names)) for names in zip(*refused, strict=True))
        yield Rule(
            scopes=(STAGE,),
            field="objective",
            holds=f"!({either('self.method.type', methods)} && {either('self.objective', objectives)})",
            message=why,
            instead="choose another method for this objective; docs/methods.md has a table",
        )


def _all_linear(name: str) -> Rule:
    return Rule(
        scopes=(METHOD,),
        each=name,
        field="targetModules",
        holds="!has(it.targetModules) || !('all-linear' in it.targetModules) || size(it.targetModules) == 1",
        message="all-linear names every module already",
        instead="write [all-linear] alone, or the names of modules without it",
    )


def _unusual_rate(method: str, low: float, high: float) -> Rule:
    rate = "it.learningRate"
    return Rule(
        scopes=(STAGE,),
        each="training",
        field="learningRate",
        holds=f"!has({rate}) || self.method.type != '{method}' || ({rate} >= {low:.0e} && {rate} <= {high:.0e})",
        message=f"far outside what is usual for {method}",
        instead=f"rates between {low:.0e} and {high:.0e} are usual; keep it if you mean it",
        warning=True,
    )


RULES: Final = (
    *(rule for method, row in TABLE.items() if row.options is not None for rule in _own_options(method, row.required)),
    Rule(
        scopes=(METHOD,),
        each="partial",
        holds="has(it.trained) != has(it.frozen)",
        message="parameters are chosen by what is trained or by what is frozen",
        instead="write one of partial.trained and partial.frozen",
    ),
    *(_all_linear(method) for method, row in TABLE.items() if row.options is not None and issubclass(row.options, Targeted)),
    Rule(
        scopes=(METHOD,),
        each="gradual",
        holds="has(it.everySteps) != has(it.everyEpochs)",
        message="the schedule counts steps or epochs",
        instead="write one of gradual.everySteps and gradual.everyEpochs",
    ),
    Rule(
        scopes=(METHOD,),
        each="adalora",
        field="targetR",
        holds="it.?targetR.orValue(8) < it.?initR.orValue(12)",
        message="ranks shall be pruned, and targetR is not below initR",
        instead="write a targetR below initR",
    ),
    Rule(
        scopes=(METHOD,),
        each="adalora",
        field="finalShare",
        holds="it.?warmupShare.orValue(0.1) + it.?finalShare.orValue(0.3) < 1.0",
        message="no step is left in which ranks are pruned",
        instead="write a warmupShare and a finalShare that are less than 1 together",
    ),
    Rule(
        scopes=(METHOD,),
        each="gralora",
        field="k",
        holds="it.?r.orValue(32) % it.?k.orValue(2) == 0",
        message="the granularity does not divide the rank",
        instead="write a k that divides r",
    ),
    Rule(
        scopes=(METHOD,),
        each="qlora",
        field="doubleQuantization",
        holds="!it.?doubleQuantization.orValue(false) || (it.?quantization.orValue('nf4') == 'nf4' && it.?initialization.orValue('default') != 'loftq')",
        message="only nf4 has scales to quantise again, and loftq counts its error without that",
        instead="leave doubleQuantization out",
    ),
    Rule(
        scopes=(METHOD,),
        each="qlora",
        field="initialization",
        holds="it.?initialization.orValue('default') != 'loftq' || it.?quantization.orValue('nf4') == 'nf4'",
        message="loftq looks for the adapter that makes up for nf4",
        instead="write quantization: nf4, or another initialization",
    ),
    Rule(
        scopes=(METHOD,),
        each="qlora",
        field="loftqIterations",
        holds="!has(it.loftqIterations) || it.?initialization.orValue('default') == 'loftq'",
        message="these are the iterations of initialization: loftq",
        instead="write initialization: loftq, or leave loftqIterations out",
    ),
    Rule(
        scopes=(METHOD,),
        each="qlora",
        field="dora",
        holds="!it.?dora.orValue(false) || it.?quantization.orValue('nf4') != 'int8'",
        message="impossible (tried): where DoRA reads a weight in bitsandbytes' int8, PEFT loses its scales",
        instead="write quantization: nf4 or torchaoInt8, or leave dora out",
    ),
    Rule(
        scopes=(METHOD,),
        each="promptTuning",
        field="text",
        holds="has(it.text) == (it.?initialization.orValue('random') == 'text')",
        message="a prompt begins with a text where, and only where, it is told so",
        instead="write initialization: text and text together, or neither",
    ),
    Rule(
        scopes=(STAGE,),
        each="training",
        field="packing",
        holds=f"!it.?packing.orValue(false) || !({either('self.method.type', [method for method, row in TABLE.items() if not row.packs])})",
        message="a trained prompt stands in front of each row, and packed documents would share one",
        instead="leave packing out; groupByLength also saves padding",
    ),
    *_objectives(),
    *(_unusual_rate(method, *row.usual) for method, row in TABLE.items()),
)


def _lists() -> Iterator[Unique]:
    """Every list of names among the options."""
    for method, row in TABLE.items():
        for field in row.options.model_fields.values() if row.options is not None else ():
            if "list[" in str(field.annotation):
                yield Unique(f"{METHOD}.{method}.{field.alias}")


UNIQUE: Final = tuple(_lists())
