"""Rules about methods, made from the support table: whose options are written, which objectives it can have, what a result may be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, get_args, get_origin

from pydantic import BaseModel

from finetune_api.v1alpha1.method import TABLE
from finetune_api.v1alpha1.methods.common import Targeted
from finetune_api.v1alpha1.rules.rule import Rule, Unique, either
from finetune_api.v1alpha1.support import USUAL_WARMUP, Row
from finetune_api.v1alpha1.training import DEFAULT_ROWS

STAGE: Final = "spec.stages[]"
METHOD: Final = "spec.stages[].method"
_ENDLESS: Final = 1_000_000_000
"""Steps of a stage that counts epochs: what share a warm-up is of them is not known here."""


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
            message=f"{name} cannot do without its options",
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


def _no_all_linear(name: str) -> Rule:
    return Rule(
        scopes=(METHOD,),
        each=name,
        field="targetModules",
        holds="!has(it.targetModules) || !('all-linear' in it.targetModules)",
        message="all-linear is for methods that change the matrices of linear modules",
        instead="write names of modules, or leave targetModules out",
    )


def _unusual(method: str, row: Row) -> Iterator[Rule]:
    """What `finetune validate` warns of: a rate, a batch or a warm-up that nobody uses with this method."""
    rate, rows = "it.learningRate", f"it.?perDeviceTrainBatchSize.orValue({DEFAULT_ROWS}) * it.?gradientAccumulationSteps.orValue(1)"
    said = "has(it.perDeviceTrainBatchSize) || has(it.gradientAccumulationSteps)"
    (low, high), (fewest, most) = row.usual, row.usual_batch
    warmup = f"it.?warmupSteps.orValue(0) <= it.?maxSteps.orValue({_ENDLESS}) * {USUAL_WARMUP}"
    for field, holds, usual in (
        ("learningRate", f"!has({rate}) || ({rate} >= {low:.0e} && {rate} <= {high:.0e})", f"rates from {low:.0e} to {high:.0e}"),
        ("perDeviceTrainBatchSize", f"!({said}) || ({rows} >= {fewest} && {rows} <= {most})", f"{fewest} to {most} rows an optimizer step"),
        ("warmupRatio", f"it.?warmupRatio.orValue(0) <= {USUAL_WARMUP}", f"shares up to {USUAL_WARMUP}"),
        ("warmupSteps", warmup, f"shares of maxSteps up to {USUAL_WARMUP}"),
    ):
        yield Rule(
            scopes=(STAGE,),
            each="training",
            field=field,
            holds=f"self.method.type != '{method}' || {holds}",
            message=f"far outside what is usual for {method}",
            instead=f"{usual} pass unwarned ({row.source}); keep it if you mean it",
            warning=True,
        )


def _from_data(field: str, *starts: str) -> Rule:
    start = "it.?initialization.orValue('default')"
    return Rule(
        scopes=(METHOD,),
        each="lora",
        field=field,
        holds=f"!has(it.{field}) || {either(start, starts)}",
        message="this start does not look at data so",
        instead=f"write initialization: {' or '.join(starts)}, or leave {field} out",
    )


_ROUNDED: Final = "self.method.?full.?weights.orValue('fp32') == 'bf16'"

RULES: Final = (
    *(rule for method, row in TABLE.items() if row.options is not None for rule in _own_options(method, row.required)),
    Rule(
        scopes=(METHOD,),
        each="partial",
        holds="[has(it.trained), has(it.frozen), has(it.lastLayers), has(it.share)].exists_one(given, given)",
        message="parameters are chosen in one way",
        instead="write one of partial.trained, partial.frozen, partial.lastLayers and partial.share",
    ),
    Rule(
        scopes=(f"{METHOD}.full.groups[]",),
        field="learningRateFactor",
        holds="has(self.learningRateFactor) || has(self.weightDecay)",
        message="this group is like all others",
        instead="add learningRateFactor or weightDecay, or take the group out",
    ),
    Rule(
        scopes=(STAGE,),
        each="training",
        field="optimizer",
        holds=f"!({_ROUNDED}) || it.?optimizer.orValue('adamw') == 'adamw'",
        message="only adamw rounds stochastically",
        instead="write optimizer: adamw, or full: {weights: fp32}",
    ),
    Rule(
        scopes=(STAGE,),
        each="training",
        field="mixedPrecision",
        holds=f"!({_ROUNDED}) || it.?mixedPrecision.orValue('auto') in ['auto', 'bf16']",
        message="weights in bf16 compute in bf16",
        instead="write auto or bf16, or full: {weights: fp32}",
    ),
    Rule(
        scopes=(STAGE,),
        each="regularization[]",
        field="type",
        holds=f"!({_ROUNDED}) || !(it.type in ['l2sp', 'ewc', 'mixout'])",
        message="what this guard does to a weight is lost between two numbers of bf16",
        instead="write full: {weights: fp32}, or choose kl or replay",
    ),
    *(
        (_all_linear if issubclass(row.options, Targeted) else _no_all_linear)(method)
        for method, row in TABLE.items()
        if row.options is not None and "target_modules" in row.options.model_fields
    ),
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
        each="hra",
        field="r",
        holds="it.?r.orValue(8) % 2 == 0",
        message="an odd number of reflections turns the weights round before anything is learned, where pairs of equal ones cancel",
        instead="write an even number",
    ),
    *(
        Rule(
            scopes=(METHOD,),
            each=method,
            field="r",
            holds="it.?initialization.orValue('default') != 'orthogonal' || it.?r.orValue(16) % 2 == 0",
            message="an orthogonal start takes half the rank for each matrix",
            instead="write an even number",
        )
        for method in ("lora", "qlora")
    ),
    _from_data("initializationRows", "eva", "corda"),
    _from_data("rho", "eva"),
    _from_data("cordaMode", "corda"),
    Rule(
        scopes=(STAGE,),
        each="method.lora",
        field="cordaMode",
        holds="it.?cordaMode.orValue('') != 'knowledgePreserved' || self.data.train.exists(source, source.?replay.orValue(false))",
        message="nothing says what has to be kept",
        instead="add a source of it to data.train, with replay: true and a small weight",
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
    Rule(
        scopes=(STAGE,),
        each="training",
        field="gradientCheckpointing",
        holds="!it.?gradientCheckpointing.orValue(false) || "
        f"!({either('self.method.type', [method for method, row in TABLE.items() if not row.recomputes])})",
        message="impossible (tried): a layer that is recomputed loses the keys and values that stand in front of the row",
        instead="leave gradientCheckpointing out, or use promptTuning or pTuning",
    ),
    *_objectives(),
    *(rule for method, row in TABLE.items() for rule in _unusual(method, row)),
)


def _lists() -> Iterator[Unique]:
    """Every list of names among the options."""
    for method, row in TABLE.items():
        if row.options is not None:
            yield from _lists_of(row.options, f"{METHOD}.{method}")


def _lists_of(model: type[BaseModel], path: str) -> Iterator[Unique]:
    """The lists of names among a model's fields, and among those of what its other lists are of."""
    for field in model.model_fields.values():
        item, inner = _item(field.annotation), f"{path}.{field.alias}"
        if isinstance(item, type) and issubclass(item, BaseModel):
            yield from _lists_of(item, f"{inner}[]")
        elif item is not None:
            yield Unique(inner)


def _item(annotation: object) -> object:
    """What a list is of, in an annotation such as `list[str] | None`; None where there is no list."""
    if get_origin(annotation) is list:
        return get_args(annotation)[0]
    return next((item for each in get_args(annotation) if (item := _item(each)) is not None), None)


UNIQUE: Final = tuple(_lists())
