"""Rules about one stage: its method, its training options, validation and early stopping; and what is unusual enough to be said."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from finetune_api.v1alpha1.rules.rule import Rule
from finetune_api.v1alpha1.training import CLASS_METRICS, TOKEN_METRICS, EarlyStoppingMetric

STAGE: Final = "spec.stages[]"
TRAINING: Final = "spec.stages[].training"
METHOD: Final = "spec.stages[].method"

_USUAL_LEARNING_RATES: Final = {"full": (1e-6, 5e-4), "partial": (1e-6, 5e-4), "lora": (1e-5, 3e-3), "headOnly": (1e-5, 1e-1)}
"""Ten to thirty times around what is in use (design: 1e-5 to 5e-5 for full, 1e-4 to 2e-4 for lora): outside it is seldom meant."""


def _adam_only(field: str, default: str) -> Rule:
    return Rule(
        scopes=(TRAINING,),
        field=field,
        holds=f"self.?{field}.orValue({default}) == {default} || self.?optimizer.orValue('adamw') == 'adamw'",
        message="only adamw has this option",
        instead=f"leave {field} out, or write optimizer: adamw",
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


def _metrics(names: Iterable[EarlyStoppingMetric]) -> str:
    return str([name.value for name in names])


RULES: Final = (
    Rule(
        scopes=(METHOD,),
        field="lora",
        holds="!has(self.lora) || self.type == 'lora'",
        message="these options are for type: lora",
        instead="write type: lora, or leave the block lora out",
    ),
    Rule(
        scopes=(METHOD,),
        field="partial",
        holds="!has(self.partial) || self.type == 'partial'",
        message="these options are for type: partial",
        instead="write type: partial, or leave the block partial out",
    ),
    Rule(
        scopes=(METHOD,),
        field="type",
        holds="self.type != 'partial' || has(self.partial)",
        message="partial does not say which parameters",
        instead="add partial: {trained: [PATTERN, …]} or partial: {frozen: [PATTERN, …]}",
    ),
    Rule(
        scopes=(METHOD,),
        each="partial",
        holds="has(it.trained) != has(it.frozen)",
        message="parameters are chosen by what is trained or by what is frozen",
        instead="write one of partial.trained and partial.frozen",
    ),
    Rule(
        scopes=(METHOD,),
        each="lora",
        field="targetModules",
        holds="!has(it.targetModules) || !('all-linear' in it.targetModules) || size(it.targetModules) == 1",
        message="all-linear names every module already",
        instead="write [all-linear] alone, or the names of modules without it",
    ),
    Rule(
        scopes=("spec",),
        each="stages[]",
        field="objective",
        holds="it.objective != 'maskedLanguageModeling' || !self.stages.exists(stage, stage.objective in ['causalLanguageModeling', 'supervised'])",
        message="no model is both a masked language model and a causal one, which the other stages need",
        instead="write causalLanguageModeling beside supervised stages, or make two jobs",
    ),
    Rule(
        scopes=(TRAINING,),
        field="warmupRatio",
        holds="!has(self.warmupRatio) || !has(self.warmupSteps)",
        message="warm-up is given twice",
        instead="write one of warmupSteps and warmupRatio",
    ),
    Rule(
        scopes=(TRAINING,),
        field="maxSteps",
        holds="!has(self.maxSteps) || !has(self.numTrainEpochs)",
        message="the length of the stage is given twice",
        instead="write one of maxSteps and numTrainEpochs",
    ),
    Rule(
        scopes=(TRAINING,),
        field="groupByLength",
        holds="!self.?packing.orValue(false) || !self.?groupByLength.orValue(false)",
        message="packed rows all have one length",
        instead="write one of packing and groupByLength",
    ),
    _adam_only("adamBeta1", "0.9"),
    _adam_only("adamBeta2", "0.999"),
    _adam_only("adamEpsilon", "1e-8"),
    Rule(
        scopes=(STAGE,),
        each="training",
        field="packing",
        holds="!it.?packing.orValue(false) || self.objective in ['causalLanguageModeling', 'supervised']",
        message="this objective does not pack rows",
        instead="leave packing out; groupByLength also saves padding",
    ),
    Rule(
        scopes=(STAGE,),
        each="training",
        field="mlmProbability",
        holds="!has(it.mlmProbability) || self.objective == 'maskedLanguageModeling'",
        message="this objective masks nothing",
        instead="leave mlmProbability out, or write objective: maskedLanguageModeling",
    ),
    Rule(
        scopes=(STAGE,),
        field="evalSteps",
        holds="!has(self.evalSteps) || has(self.data.validation)",
        message="there are no validation rows to measure on",
        instead="add data.validation: {fraction: 0.02} or data.validation: {uri: …}, or leave evalSteps out",
    ),
    Rule(
        scopes=(STAGE,),
        each="training",
        field="earlyStopping",
        holds="!has(it.earlyStopping) || (has(self.data.validation) && has(self.evalSteps))",
        message="early stopping needs measurements on validation rows",
        instead="add data.validation and evalSteps to the stage, or leave earlyStopping out",
    ),
    Rule(
        scopes=(STAGE,),
        each="training.earlyStopping",
        field="metric",
        holds=f"it.?metric.orValue('eval_loss') in (self.objective == 'classification' ? {_metrics(CLASS_METRICS)} : {_metrics(TOKEN_METRICS)})",
        message="this objective has no such validation metric",
        instead=f"write one of {', '.join(CLASS_METRICS)} for classification, one of {', '.join(TOKEN_METRICS)} for the others",
    ),
    Rule(
        scopes=(STAGE,),
        field="handOverWeights",
        holds="self.?handOverWeights.orValue('last') != 'best' || (has(self.training) && has(self.training.earlyStopping))",
        message="nothing says what is best",
        instead="add training.earlyStopping (with data.validation and evalSteps), or write handOverWeights: last",
    ),
    *(_unusual_rate(method, low, high) for method, (low, high) in _USUAL_LEARNING_RATES.items()),
)
