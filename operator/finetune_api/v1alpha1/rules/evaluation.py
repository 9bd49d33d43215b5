"""Rules about suites and gates: what can be measured by which objective, and after which stage a gate has something to judge."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from finetune_api.v1alpha1.rules.hand_over import UNFOLDED
from finetune_api.v1alpha1.rules.rule import POSITIONS, Rule, either

SUITE: Final = "spec.evaluation.suites[]"
GATE: Final = "spec.evaluation.gates[]"
_LM: Final = "['causalLanguageModeling', 'supervised']"
_CLASS_METRICS: Final = (
    "['loss', 'accuracy', 'precisionMacro', 'precisionWeighted', 'recallMacro', 'recallWeighted', 'f1Macro', 'f1Weighted']"
)
_LM_METRICS: Final = "['loss', 'perplexity', 'tokenAccuracy']"

_CLASSIFIES: Final = "suite.objective == 'classification'"
_MASKED: Final = "suite.objective == 'maskedLanguageModeling'"
_LANGUAGE: Final = f"suite.objective in {_LM}"
_CLASSIFIED_UP_TO: Final = f"{POSITIONS}.exists(j, j <= i + {{}} && j < size(self.stages) && self.stages[j].objective == 'classification')"
_NONE_YET: Final = f"!{_CLASSIFIED_UP_TO.format(0)}"
_FIRST_HERE: Final = f"{_CLASSIFIED_UP_TO.format(0)} && !{_CLASSIFIED_UP_TO.format(-1)}"
_NO_BASELINE: Final = "!self.evaluation.?baseline.orValue(true)"
_RELATIVE_TO_BASE: Final = "it.?relativeTo.orValue('base') == 'base'"
_JUDGED_AT_I: Final = "i < size(self.stages) && (has(it.stage) ? self.stages[i].name == it.stage : i + 1 == size(self.stages))"
"""Whether the gate `it` is judged after stage number `i`."""


def _suite_is(condition: str) -> str:
    return f"(has(self.evaluation.suites) && self.evaluation.suites.exists(suite, suite.name == it.suite && {condition}))"


def _judged(condition: str) -> str:
    """Write: the stage after which the gate `it` is judged, number `i`, has this property."""
    return f"{POSITIONS}.exists(i, {_JUDGED_AT_I} && {condition})"


def _gate(field: str, holds: str, message: str, instead: str, choices: str = "") -> Rule:
    return Rule(scopes=("spec",), each="evaluation.gates[]", field=field, holds=holds, message=message, instead=instead, choices=choices)


def _under_its_own_head() -> Iterator[Rule]:
    """What cannot be folded into the weights is measured under its stage's own kind of head alone."""
    for suite, comparison in ((f"!({_CLASSIFIES})", "=="), (_CLASSIFIES, "!=")):

        def alone(position: str, comparison: str = comparison) -> str:
            at = f"self.stages[{position}]"
            return f"{at}.objective {comparison} 'classification' && {either(f'{at}.method.type', UNFOLDED)}"

        yield _gate(
            "suite",
            f"!{_suite_is(suite)} || !{_judged(alone('i'))}",
            "what this gate's stage learns goes with its own kind of head only, so the suite is not applicable after it",
            "gate a suite that reads its rows as the stage does, or use a method whose result can be merged, such as lora",
        )
        yield _gate(
            "relativeTo",
            f"{_RELATIVE_TO_BASE} || !{_suite_is(suite)} || !{_judged('i > 0 && ' + alone('i - 1'))}",
            "what the stage before learns goes with its own kind of head only, so the suite is not applicable after it",
            "write relativeTo: base, or use a method before whose result can be merged, such as lora",
        )


def _one_of(field: str) -> Rule:
    return Rule(
        scopes=(GATE,),
        each=field,
        holds="has(it.absolute) != has(it.relative)",
        message="a change is either absolute or relative",
        instead="write one of {absolute: 0.05} and {relative: 0.05}",
    )


RULES: Final = (
    Rule(
        scopes=(SUITE,),
        each="metrics[]",
        holds=f"it in (self.objective == 'classification' ? {_CLASS_METRICS} : {_LM_METRICS}) || (it == 'exactMatch' && self.objective == 'supervised')",
        message="this suite's objective has no such metric",
        instead="language modelling has loss, perplexity and tokenAccuracy; supervised also exactMatch; classification loss, accuracy, precision…, recall… and f1…",
    ),
    Rule(
        scopes=(SUITE,),
        field="maxNewTokens",
        holds="!has(self.maxNewTokens) || 'exactMatch' in self.metrics",
        message="this suite generates nothing",
        instead="add exactMatch to its metrics, or leave maxNewTokens out",
    ),
    Rule(
        scopes=(SUITE,),
        field="labels",
        holds="!has(self.labels) || self.objective == 'classification'",
        message="only classification has labels",
        instead="leave labels out, or write objective: classification",
    ),
    Rule(
        scopes=("spec",),
        each="evaluation.suites[]",
        field="objective",
        holds="it.objective != 'classification' || self.stages.exists(stage, stage.objective == 'classification')",
        message="no stage of this job makes a classification head, so this suite is never applicable",
        instead="add a classification stage, or measure with another objective",
        warning=True,
    ),
    Rule(
        scopes=("spec",),
        each="evaluation.suites[]",
        field="objective",
        holds=f"it.objective != 'maskedLanguageModeling' || !self.stages.exists(stage, stage.objective in {_LM})",
        message="the model of this job is a causal language model, so this suite is never applicable",
        instead="write causalLanguageModeling",
        warning=True,
    ),
    Rule(
        scopes=("spec",),
        each="evaluation.suites[]",
        field="objective",
        holds=f"!(it.objective in {_LM}) || !self.stages.exists(stage, stage.objective == 'maskedLanguageModeling')",
        message="the model of this job is a masked language model, so this suite is never applicable",
        instead="write maskedLanguageModeling",
        warning=True,
    ),
    _gate(
        "suite",
        _suite_is("true"),
        "there is no suite of this name",
        "write the name of a suite in spec.evaluation.suites",
        "self.evaluation.suites.map(suite, suite.name)",
    ),
    _gate(
        "metric",
        f"!{_suite_is('!(it.metric in suite.metrics)')}",
        "the suite does not compute this metric",
        "add it to the suite's metrics, or write one that is there",
    ),
    _gate(
        "stage",
        "!has(it.stage) || self.stages.exists(stage, stage.name == it.stage)",
        "there is no stage of this name",
        "write the name of a stage in spec.stages, or leave it out for the last one",
        "self.stages.map(stage, stage.name)",
    ),
    _gate(
        "relativeTo",
        f"!({_NO_BASELINE} && {_RELATIVE_TO_BASE})",
        "the base model is not measured (baseline: false)",
        "write evaluation.baseline: true, or relativeTo: previousStage",
    ),
    _gate(
        "relativeTo",
        f"!({_NO_BASELINE} && !({_RELATIVE_TO_BASE}) && {_judged('i == 0')})",
        "before the first stage there is only the base model, which is not measured (baseline: false)",
        "write evaluation.baseline: true, or judge the gate after a later stage",
    ),
    _gate(
        "stage",
        f"!{_suite_is(_CLASSIFIES)} || !{_judged(_NONE_YET)}",
        "no classification stage comes before this gate, so the suite is not applicable",
        "judge the gate after the classification stage, or leave it out",
    ),
    _gate(
        "relativeTo",
        f"!({_suite_is(_CLASSIFIES)} && {_RELATIVE_TO_BASE})",
        "the base model has no classification head to compare with",
        "write relativeTo: previousStage, with an earlier classification stage, or leave the gate out",
    ),
    _gate(
        "relativeTo",
        f"!({_suite_is(_CLASSIFIES)} && !({_RELATIVE_TO_BASE}) && {_judged(_FIRST_HERE)})",
        "the model has no classification head before this stage to compare with",
        "judge the gate after a later stage, or leave it out",
    ),
    _gate(
        "suite",
        f"!{_suite_is(_LANGUAGE)} || !self.stages.exists(stage, stage.objective == 'maskedLanguageModeling')",
        "the model of this job is a masked language model, so the suite is not applicable",
        "gate a suite with objective: maskedLanguageModeling",
    ),
    _gate(
        "suite",
        f"!{_suite_is(_MASKED)} || !self.stages.exists(stage, stage.objective in {_LM})",
        "the model of this job is a causal language model, so the suite is not applicable",
        "gate a suite with objective: causalLanguageModeling or supervised",
    ),
    *_under_its_own_head(),
    Rule(
        scopes=(GATE,),
        holds="has(self.minImprovement) != has(self.maxRegression)",
        message="a gate asks for an improvement or bounds a regression",
        instead="write one of minImprovement and maxRegression",
    ),
    _one_of("minImprovement"),
    _one_of("maxRegression"),
)
