"""Rules about one stage: its training options, validation and early stopping."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from finetune_api.v1alpha1.rules.rule import Rule
from finetune_api.v1alpha1.training import CLASS_METRICS, TOKEN_METRICS, EarlyStoppingMetric

STAGE: Final = "spec.stages[]"
TRAINING: Final = "spec.stages[].training"


def _adam_only(field: str, default: str) -> Rule:
    return Rule(
        scopes=(TRAINING,),
        field=field,
        holds=f"self.?{field}.orValue({default}) == {default} || self.?optimizer.orValue('adamw') == 'adamw'",
        message="only adamw has this option",
        instead=f"leave {field} out, or write optimizer: adamw",
    )


FOLLOWING: Final = EarlyStoppingMetric.INSTRUCTION_FOLLOWING


def _judged_only(field: str) -> Rule:
    return Rule(
        scopes=(f"{TRAINING}.earlyStopping",),
        field=field,
        holds=f"!has(self.{field}) || self.?metric.orValue('eval_loss') == '{FOLLOWING}'",
        message="only an Instruction Following Score asks the model for answers",
        instead=f"leave {field} out, or write metric: {FOLLOWING}",
    )


def _metrics(names: Iterable[EarlyStoppingMetric]) -> str:
    return str([name.value for name in names])


RULES: Final = (
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
        holds=f"it.?metric.orValue('eval_loss') in (self.objective == 'classification' ? {_metrics(CLASS_METRICS)} : {_metrics(TOKEN_METRICS)})"
        f" || (self.objective == 'supervised' && it.?metric.orValue('eval_loss') == '{FOLLOWING}')",
        message="this objective has no such validation metric",
        instead=f"write one of {', '.join(CLASS_METRICS)} for classification, one of {', '.join(TOKEN_METRICS)} for the others, "
        f"or {FOLLOWING} for supervised",
    ),
    Rule(
        scopes=(f"{TRAINING}.earlyStopping",),
        field="metric",
        holds=f"self.?metric.orValue('eval_loss') != '{FOLLOWING}' || has(self.classifier)",
        message="an Instruction Following Score needs a model that tells answers from continuations",
        instead="add classifier: {uri: …, label: …}, a trained sequence classifier and its label that means an answer",
    ),
    _judged_only("classifier"),
    _judged_only("prompts"),
    _judged_only("maxNewTokens"),
    Rule(
        scopes=(STAGE,),
        field="handOverWeights",
        holds="self.?handOverWeights.orValue('last') != 'best' || (has(self.training) && has(self.training.earlyStopping))",
        message="nothing says what is best",
        instead="add training.earlyStopping (with data.validation and evalSteps), or write handOverWeights: last",
    ),
)
