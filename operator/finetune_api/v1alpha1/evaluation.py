"""What is measured before, between and after the stages, and which results a job must reach."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from finetune_api import constants as c
from finetune_api.base import ApiModel
from finetune_api.v1alpha1.data import SuiteData
from finetune_api.v1alpha1.stage import Objective
from finetune_api.v1alpha1.types import Label, Name


class Metric(StrEnum):
    LOSS = "loss"
    PERPLEXITY = "perplexity"
    TOKEN_ACCURACY = "tokenAccuracy"
    EXACT_MATCH = "exactMatch"
    ACCURACY = "accuracy"
    PRECISION_MACRO = "precisionMacro"
    PRECISION_WEIGHTED = "precisionWeighted"
    RECALL_MACRO = "recallMacro"
    RECALL_WEIGHTED = "recallWeighted"
    F1_MACRO = "f1Macro"
    F1_WEIGHTED = "f1Weighted"


class RelativeTo(StrEnum):
    BASE = "base"
    PREVIOUS_STAGE = "previousStage"


class Suite(ApiModel):
    """A set of rows that no stage trains on, and the metrics to compute on it."""

    name: Name
    """Unique in the job. Example: in-domain"""
    objective: Annotated[Objective, Field(strict=False)]
    """How the rows are read and scored: causalLanguageModeling, maskedLanguageModeling, supervised or classification. Example: supervised"""
    data: SuiteData
    """The rows. Example: {uri: pvc://data/test.jsonl}"""
    metrics: Annotated[list[Annotated[Metric, Field(strict=False)]], Field(min_length=1, max_length=c.MAX_METRICS)]
    """Language modelling: loss, perplexity, tokenAccuracy. supervised: these and exactMatch (generated, greedy). classification: loss, accuracy, precisionMacro, precisionWeighted, recallMacro, recallWeighted, f1Macro, f1Weighted. Example: [loss, exactMatch]"""
    max_length: Annotated[int, Field(ge=8, le=1_048_576)] | None = None
    """Longest row, in tokens; longer ones are truncated and counted. Default: the model's limit or 2048, whichever is smaller. Example: 1024"""
    max_new_tokens: Annotated[int, Field(ge=1, le=65536)] | None = None
    """Tokens to generate a row (exactMatch only). Default: 64. Example: 64"""
    labels: Annotated[list[Label], Field(min_length=2, max_length=c.MAX_LABELS)] | None = None
    """The classes (classification only). Default: the labels of the classification stage before it. Example: [billing, delivery, other]"""


class Samples(ApiModel):
    """Completions of the base and of the tuned model, side by side in the report: greedy, on the first rows of the first supervised suite."""

    count: Annotated[int, Field(ge=0, le=64)] = 3
    """Rows to show. Default: 3. Example: 3"""
    max_new_tokens: Annotated[int, Field(ge=1, le=4096)] = 64
    """Tokens to generate a row. Default: 64. Example: 64"""


class Change(ApiModel):
    """Write one of the two."""

    absolute: Annotated[float, Field(ge=0, le=1e9)] | None = None
    """In the metric's own unit. Example: 0.05"""
    relative: Annotated[float, Field(ge=0, le=1e6)] | None = None
    """As a share of the reference's value. Example: 0.03"""


class Gate(ApiModel):
    """A result that the job must reach, or nothing is published. Judged on the point estimate; the bootstrap interval is shown beside it."""

    suite: Name
    """A suite of this job. Example: knowledge"""
    metric: Annotated[Metric, Field(strict=False)]
    """One of that suite's metrics. Example: perplexity"""
    stage: Name | None = None
    """After which stage it is judged; a miss stops the job before the next stage. Default: the last one. Example: task"""
    relative_to: Annotated[RelativeTo, Field(strict=False)] = RelativeTo.BASE
    """base, or previousStage (for the first stage that is the base). Default: base. Example: base"""
    min_improvement: Change | None = None
    """How much better the metric must be (lower for loss and perplexity, higher for the others). Write this or maxRegression. Example: {absolute: 0.05}"""
    max_regression: Change | None = None
    """How much worse the metric may be. Write this or minImprovement. Example: {relative: 0.03}"""


class Evaluation(ApiModel):
    baseline: bool = True
    """Measure the base model on the same suites first. Default: true. Example: true"""
    samples: Samples = Samples()
    """Completions to show side by side. Default: 3 rows, 64 tokens. Example: {count: 3, maxNewTokens: 64}"""
    suites: Annotated[list[Suite], Field(max_length=c.MAX_SUITES)] = []
    """Sets to measure on. Default: none. Example: [{name: knowledge, objective: causalLanguageModeling, data: {uri: pvc://data/wiki.txt}, metrics: [perplexity]}]"""
    gates: Annotated[list[Gate], Field(max_length=c.MAX_GATES)] = []
    """Results to reach. Default: none. Example: [{suite: knowledge, metric: perplexity, maxRegression: {relative: 0.03}}]"""
