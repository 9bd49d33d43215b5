"""Rules about guards: which options each has, and with which methods and objectives it works."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from finetune_api.v1alpha1.data import GROUPS
from finetune_api.v1alpha1.method import MethodType
from finetune_api.v1alpha1.regularization import Guard, GuardType
from finetune_api.v1alpha1.rules.rule import Rule

STAGE: Final = "spec.stages[]"
SOURCE: Final = "spec.stages[].data.train[]"
GUARD: Final = "spec.stages[].regularization[]"


class Options(NamedTuple):
    """The fields of a guard, beside its type."""

    required: frozenset[str] = frozenset()
    optional: frozenset[str] = frozenset()


OPTIONS: Final[Mapping[GuardType, Options]] = {
    GuardType.L2SP: Options(frozenset({"strength"}), frozenset({"anchor"})),
    GuardType.EWC: Options(frozenset({"strength"}), frozenset({"anchor", "samples"})),
    GuardType.KL: Options(frozenset({"strength"}), frozenset({"anchor"})),
    GuardType.DANN: Options(frozenset({"strength"})),
    GuardType.MIXOUT: Options(frozenset({"probability"}), frozenset({"anchor"})),
    GuardType.LOSS_SPIKE: Options(frozenset({"action"}), frozenset({"window", "deviations", "factor", "steps"})),
}
WITH_WEIGHTS: Final = ("full", "gradual", "partial", "headOnly")
"""Methods that train weights of the model themselves."""
WITH_CHANGE: Final = (*WITH_WEIGHTS, "lora")
"""Methods whose change of a weight can be written down: what l2sp and ewc hold."""
FROM_ELSEWHERE: Final = ("promptTuning", "prefixTuning", "pTuning")
"""Methods with which the model says something else from the first step on than the base."""


def _listed(words: object) -> str:
    return str(sorted(str(word) for word in words))  # type: ignore[attr-defined]


def _options() -> tuple[Rule, ...]:
    """Refuse fields that a guard doesn't have, and guards without what they need."""
    fields = [field.alias or name for name, field in Guard.model_fields.items() if name != "type"]
    found = []
    for field in fields:
        owners = [guard for guard, options in OPTIONS.items() if field in options.required | options.optional]
        needing = [guard for guard, options in OPTIONS.items() if field in options.required]
        if len(owners) < len(OPTIONS):
            found.append(
                Rule(
                    scopes=(GUARD,),
                    field=field,
                    holds=f"!has(self.{field}) || self.type in {_listed(owners)}",
                    message="this guard has no such option",
                    instead=f"leave {field} out; it is for {', '.join(sorted(owners))}",
                )
            )
        if needing:
            found.append(
                Rule(
                    scopes=(GUARD,),
                    field="type",
                    holds=f"has(self.{field}) || !(self.type in {_listed(needing)})",
                    message=f"this guard needs its {field}",
                    instead=f"add {field}; docs/guards.md says what it means and what is usual",
                )
            )
    return tuple(found)


def _method(guard: GuardType, methods: tuple[str, ...], message: str, instead: str) -> Rule:
    return Rule(
        scopes=(STAGE,),
        each="regularization[]",
        field="type",
        holds=f"it.type != '{guard}' || self.method.type in {_listed(methods)}",
        message=message,
        instead=instead,
    )


RULES: Final = (
    *_options(),
    *(
        _method(
            guard,
            WITH_CHANGE,
            "this guard holds weights that are trained themselves, and the change that lora makes of one",
            f"use one of the methods {', '.join(WITH_CHANGE)}, or leave {guard} out",
        )
        for guard in (GuardType.L2SP, GuardType.EWC)
        if {*MethodType} - {*WITH_CHANGE}
    ),
    Rule(
        scopes=(STAGE,),
        each="regularization[]",
        field="type",
        holds="it.type != 'ewc' || self.data.train.exists(source, source.?replay.orValue(false))",
        message="nothing says what has to be kept",
        instead="add a source of it to data.train, with replay: true and a small weight",
    ),
    Rule(
        scopes=(SOURCE,),
        field="weight",
        holds="!self.?replay.orValue(false) || (has(self.weight) && self.weight < 1.0)",
        message="replay is a share of all tokens, below 1",
        instead="write the share of what is replayed, such as weight: 0.1, and give the other sources the rest, such as 0.9",
    ),
    Rule(
        scopes=("spec.stages[].data",),
        field="train",
        holds="self.train.exists(source, !source.?replay.orValue(false))",
        message="everything is replayed, and nothing new is learned",
        instead="add a source without replay: true",
    ),
    _method(
        GuardType.MIXOUT,
        WITH_WEIGHTS,
        "mixout replaces weights that are trained themselves, and this method trains none",
        f"use one of the methods {', '.join(WITH_WEIGHTS)}, or l2sp, which holds an adapter's change",
    ),
    _method(
        GuardType.KL,
        tuple(method for method in MethodType if method not in FROM_ELSEWHERE),
        "with this method's new prompt the model is far from the base before it has learned anything",
        "leave kl out; the model's own weights don't change, so without the prompt it is the base",
    ),
    Rule(
        scopes=(STAGE,),
        each="regularization[]",
        field="type",
        holds="it.type != 'kl' || self.objective != 'classification'",
        message="the anchor has no head for these classes, so there is nothing to stay near",
        instead="write l2sp, or leave kl out",
    ),
    Rule(
        scopes=(STAGE,),
        each="regularization[]",
        field="type",
        holds="it.type != 'dann' || (has(self.data.columns) && (has(self.data.columns.domain) || has(self.data.columns.confounder)))",
        message="nothing says which domain a row is of",
        instead="write data.columns.domain, data.columns.confounder, or both: the name of the column that does",
    ),
    *(
        Rule(
            scopes=(STAGE,),
            field=f"data.columns.{role}",
            holds=f"!has(self.data.columns) || !has(self.data.columns.{role}) || "
            "(has(self.regularization) && self.regularization.exists(guard, guard.type == 'dann'))",
            message="nothing reads this column",
            instead="add {type: dann, strength: 0.1} to the stage's regularization, or leave it out",
        )
        for role in GROUPS
    ),
    *(
        Rule(
            scopes=("spec.evaluation.suites[].data",),
            field=f"columns.{role}",
            holds=f"!has(self.columns) || !has(self.columns.{role})",
            message="a suite is measured without guards, and nothing reads this column",
            instead="leave it out",
        )
        for role in GROUPS
    ),
    Rule(
        scopes=(STAGE,),
        each="regularization[]",
        field="type",
        holds="it.type != 'dann' || !has(self.training) || !self.training.?packing.orValue(false)",
        message="in a packed line rows of several domains share their features",
        instead="leave training.packing out, or leave dann out",
    ),
    _method(
        GuardType.DANN,
        tuple(method for method in MethodType if method not in (*FROM_ELSEWHERE, "headOnly")),
        "with this method the model that makes the features stays as it is, and a prompt is the same for rows of every domain",
        "use a method that trains the model's layers, such as lora, or leave dann out",
    ),
    *(
        Rule(
            scopes=(GUARD,),
            field=field,
            holds=f"!has(self.{field}) || self.?action.orValue('lower') == 'lower'",
            message="a step that is left out has no learning rate",
            instead=f"leave {field} out, or write action: lower",
        )
        for field in ("factor", "steps")
    ),
)
