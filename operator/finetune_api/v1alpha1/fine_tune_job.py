"""The FineTuneJob: a model, stages in their order, what is measured, and where the result goes."""

from enum import StrEnum
from typing import Annotated, Final, Literal, Self

from pydantic import Field, ValidationInfo, model_validator

from finetune_api import constants as c
from finetune_api.base import ApiModel
from finetune_api.v1alpha1.evaluation import Evaluation
from finetune_api.v1alpha1.model import ModelSpec, References, TokenizerSpec
from finetune_api.v1alpha1.rules import broken_rules
from finetune_api.v1alpha1.stage import Stage
from finetune_api.v1alpha1.status import FineTuneJobStatus
from finetune_api.v1alpha1.types import Name, Uri

RULES_APART: Final = {"rules": "apart"}
"""Validation context for whoever asks the cross-field rules by itself, to hear every problem at once (`finetune_api.validation`)."""


DEFAULT_SEED: Final = 42
Seed = Annotated[int, Field(ge=0, le=4_294_967_295)]


class OutputFormat(StrEnum):
    ADAPTER = "adapter"
    MERGED = "merged"


class Retain(StrEnum):
    ALWAYS = "Always"
    NEVER = "Never"


class Output(ApiModel):
    uri: Uri | None = None
    """A folder for the model, its card and the report, written only after every gate has passed: `pvc://CLAIM/path`, or `file://` in local runs. Default: the folder artifacts of the run folder. Example: pvc://models/support-intents"""
    format: Annotated[list[Annotated[OutputFormat, Field(strict=False)]], Field(min_length=1, max_length=2)] | None = None
    """adapter (PEFT's format), merged (a plain model), or both. Default: adapter where the last stage makes one on the hub's own base, or one that cannot be merged; merged otherwise. Example: [adapter, merged]"""
    retain: Annotated[Retain, Field(strict=False)] = Retain.ALWAYS
    """Always, or Never: the artifacts go with the job. Never only on a claim that the operator made. Default: Always. Example: Always"""


class Retry(ApiModel):
    max_attempts: Annotated[int, Field(ge=1, le=100)] = 3
    """Attempts a segment before the job fails; failures that a repetition can't mend end it at once. Default: 3. Example: 3"""
    max_preemptions: Annotated[int, Field(ge=0, le=10000)] = 20
    """Disruptions (evictions, lost nodes) a segment survives; they don't count as attempts. Default: 20. Example: 20"""


class RuntimeRef(ApiModel):
    name: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
    """The ClusterFineTuneRuntime. Example: torch-cuda"""


class FineTuneJobSpec(ApiModel):
    runtime_ref: RuntimeRef | None = None
    """The platform team's runtime. Default: the cluster's default runtime. Local runs use this machine instead, and say so. Example: {name: torch-cuda}"""
    model: ModelSpec
    """The base model. Example: {uri: hf://HuggingFaceTB/SmolLM2-135M-Instruct}"""
    tokenizer: TokenizerSpec = TokenizerSpec()
    """Changes to the model's tokenizer. Default: none. Example: {addTokens: ["<ticket>"]}"""
    references: References = References()
    """The Secrets and claims that the job uses, by names of its own. Default: none. Example: {claims: [{name: models, claimName: team-a-models}]}"""
    seed: Seed | None = None
    """Seed of everything random: order of rows, dropout, new weights, masks. Default: 42. Example: 7"""
    seeds: Annotated[list[Seed], Field(min_length=1, max_length=c.MAX_SEEDS)] | None = None
    """Instead of seed: all stages are trained once with each, and every figure is told with its mean, deviation and interval over them. Published is the seed that did best on the last stage's validation rows. Default: none. Example: [1, 2, 3]"""
    stages: Annotated[list[Stage], Field(min_length=1, max_length=c.MAX_STAGES)]
    """From 1 to 16 stages, run in this order. Example: [{name: task, objective: supervised, data: {train: [{uri: pvc://data/train.jsonl}]}, method: {type: lora}}]"""
    evaluation: Evaluation = Evaluation()
    """What is measured, and what must be reached. Default: nothing. Example: {suites: [{name: test, objective: supervised, data: {uri: pvc://data/test.jsonl}, metrics: [loss]}]}"""
    output: Output = Output()
    """Where the model goes. Default: the folder artifacts of the run folder. Example: {uri: pvc://models/support-intents, format: [adapter, merged]}"""
    retry: Retry = Retry()
    """How often a failed or disrupted attempt is repeated (on a cluster). Default: 3 attempts, 20 preemptions. Example: {maxAttempts: 3, maxPreemptions: 20}"""
    suspend: bool = False
    """Save, stop and give the GPUs back; false again goes on from there. Default: false. Example: true"""
    active_deadline_seconds: Annotated[int, Field(ge=1, le=31_536_000)] | None = None
    """Seconds of running time, suspension not counted, after which the job fails. Default: none. Example: 86400"""
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=31_536_000)] | None = None
    """Seconds after its end when the resource is deleted (the model stays). Default: never; a GitOps tool would make the job again. Example: 604800"""

    @property
    def every_seed(self) -> tuple[int, ...]:
        """The seeds that are trained with, in the manifest's order."""
        return tuple(self.seeds) if self.seeds else (DEFAULT_SEED if self.seed is None else self.seed,)

    @property
    def data_seed(self) -> int:
        """The seed of what all arms share: which rows are drawn and how they are augmented, masks and draws of the evaluation."""
        return self.every_seed[0]

    @model_validator(mode="after")
    def _obeys_the_rules(self, info: ValidationInfo) -> Self:
        """Refuse a spec that breaks a cross-field rule: whoever holds a FineTuneJobSpec holds a valid one."""
        if info.context is not RULES_APART:
            document: dict[str, object] = {"spec": self.model_dump(mode="json", exclude_none=True)}
            found = [f"{rule.path}: {rule.message}: {rule.instead}" for rule in broken_rules(document) if not rule.warning]
            if found:
                raise ValueError("; ".join(found))
        return self


class Metadata(ApiModel):
    """Kubernetes' ObjectMeta, as far as a manifest has it; the API server checks the rest."""

    model_config = {**ApiModel.model_config, "extra": "allow"}

    name: Name
    """At most 63 lower-case letters, digits and hyphens. Example: support-intents"""
    namespace: Name | None = None
    """Default: the context's. Example: team-a"""
    labels: dict[str, str] = {}
    """Labels for selection. Example: {project: support}"""
    annotations: dict[str, str] = {}
    """Annotations. Example: {team.example.com/ticket: ML-12}"""


class FineTuneJob(ApiModel):
    api_version: Literal["finetune.dev/v1alpha1"]
    """finetune.dev/v1alpha1. Example: finetune.dev/v1alpha1"""
    kind: Literal["FineTuneJob"]
    """FineTuneJob. Example: FineTuneJob"""
    metadata: Metadata
    """Name and namespace. Example: {name: support-intents, namespace: team-a}"""
    spec: FineTuneJobSpec
    """What shall be. Example: {model: {uri: hf://owner/model}, stages: [{name: task, objective: supervised, data: {train: [{uri: pvc://data/train.jsonl}]}, method: {type: lora}}]}"""
    status: FineTuneJobStatus | None = None
    """What is; written by the operator only. Example: {phase: Running, currentStage: task}"""
