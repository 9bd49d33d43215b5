"""A stage: one objective, learned by one method, from one set of data, and what the next stage starts from."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from finetune_api import constants as c
from finetune_api.base import ApiModel
from finetune_api.v1alpha1.data import DataSpec
from finetune_api.v1alpha1.method import Method
from finetune_api.v1alpha1.objective import Objective as Objective
from finetune_api.v1alpha1.regularization import Guard
from finetune_api.v1alpha1.training import Training
from finetune_api.v1alpha1.types import Name


class HandOver(StrEnum):
    CONTINUE = "continue"
    MERGE = "merge"
    STACK = "stack"


class HandOverWeights(StrEnum):
    LAST = "last"
    BEST = "best"


class HandOverScaleBy(StrEnum):
    VALIDATION = "validation"


class CompareWith(StrEnum):
    DIRECT = "direct"


class Checkpoint(ApiModel):
    every_steps: Annotated[int, Field(ge=1, le=100_000_000)] | None = None
    """Optimizer steps between checkpoints. Default: 200 where everyMinutes is left out too. Example: 200"""
    every_minutes: Annotated[float, Field(gt=0, le=10080)] | None = None
    """Minutes between checkpoints, judged at step ends. With everySteps: whichever comes first. Example: 10"""
    keep: Annotated[int, Field(ge=1, le=1000)] = 2
    """Verified checkpoints to keep; an older one goes only after a newer one was verified. Default: 2. Example: 2"""
    asynchronous: bool = True
    """Write checkpoints beside the training instead of stopping it. As safe as the other way. Default: true. Example: false"""


class Resources(ApiModel):
    gpus: Annotated[int, Field(ge=0, le=16)] | None = None
    """GPUs of the stage's pod. Contiguous stages with equal resources share one pod. Default: what the runtime gives a training pod. Local runs take what torch sees. Example: 1"""


class Stage(ApiModel):
    name: Name
    """Unique in the job. Example: domain"""
    objective: Annotated[Objective, Field(strict=False)]
    """causalLanguageModeling, maskedLanguageModeling, supervised (prompt and completion, or chat; loss on completions only), or classification (one label a row). Example: supervised"""
    data: DataSpec
    """Training and validation rows. Example: {train: [{uri: pvc://data/train.jsonl}], validation: {fraction: 0.02}}"""
    method: Method
    """Which weights are trained, and how. Example: {type: lora}"""
    training: Training = Training()
    """Optimizer, schedule, batch and length. Default: the defaults of each field. Example: {learningRate: 1.0e-4, numTrainEpochs: 3}"""
    regularization: Annotated[list[Guard], Field(min_length=1, max_length=c.MAX_GUARDS)] | None = None
    """Guards: what is kept while the stage trains, each at most once. Default: none. Example: [{type: l2sp, strength: 0.01}]"""
    checkpoint: Checkpoint = Checkpoint()
    """When to save. Default: every 200 steps, the last two kept. Example: {everyMinutes: 10, keep: 2}"""
    eval_steps: Annotated[int, Field(ge=1, le=100_000_000)] | None = None
    """Optimizer steps between measurements on data.validation. Default: at the stage's end only. Example: 200"""
    hand_over: Annotated[HandOver, Field(strict=False)] | None = None
    """What the next stage starts from: continue (the same weights train on), merge (the adapter is folded in), or stack (the adapter stays, frozen, under the next one). Required on every stage but the last, refused there. Example: merge"""
    hand_over_scale: Annotated[float, Field(ge=0, le=1)] | None = None
    """Share of the stage's change of the weights that is handed over: 0 is what it started from. Default: 1. Example: 0.7"""
    hand_over_scale_by: Annotated[HandOverScaleBy, Field(strict=False)] | None = None
    """validation: of 0, 0.25, 0.5, 0.75 and 1 the share with the lowest loss on the next stage's data.validation. Example: validation"""
    hand_over_weights: Annotated[HandOverWeights, Field(strict=False)] = HandOverWeights.LAST
    """last, or best: the step with the best earlyStopping metric on validation data. On the last stage: what is published. Default: last. Example: best"""
    compare_with: Annotated[CompareWith, Field(strict=False)] | None = None
    """direct: the stage is trained a second time, from the base without the stages before it, on the same rows with the same options, and the report says by how much those stages helped or hurt. On one stage of a job, not the first. Default: no comparison. Example: direct"""
    resources: Resources = Resources()
    """What the stage's pod needs. Default: what the runtime gives. Example: {gpus: 1}"""
