"""How long and how fast a stage learns: the names that users of transformers' TrainingArguments know."""

from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field

from finetune_api.base import ApiModel
from finetune_api.v1alpha1.types import Name, Revision, Uri


class Optimizer(StrEnum):
    ADAMW = "adamw"
    ADAFACTOR = "adafactor"
    SGD = "sgd"


class LrSchedulerType(StrEnum):
    LINEAR = "linear"
    COSINE = "cosine"
    CONSTANT = "constant"


class MixedPrecision(StrEnum):
    AUTO = "auto"
    NO = "no"
    BF16 = "bf16"
    FP16 = "fp16"


class EarlyStoppingMetric(StrEnum):
    """Metrics on validation data, with transformers' names; for all of them but loss and perplexity more is better."""

    LOSS = "eval_loss"
    ACCURACY = "eval_accuracy"
    TOKEN_ACCURACY = "eval_token_accuracy"
    PERPLEXITY = "eval_perplexity"
    PRECISION_MACRO = "eval_precision_macro"
    PRECISION_WEIGHTED = "eval_precision_weighted"
    RECALL_MACRO = "eval_recall_macro"
    RECALL_WEIGHTED = "eval_recall_weighted"
    F1 = "eval_f1_macro"
    F1_WEIGHTED = "eval_f1_weighted"
    INSTRUCTION_FOLLOWING = "eval_instruction_following"


CLASS_METRICS: Final = (
    EarlyStoppingMetric.LOSS,
    EarlyStoppingMetric.ACCURACY,
    EarlyStoppingMetric.PRECISION_MACRO,
    EarlyStoppingMetric.PRECISION_WEIGHTED,
    EarlyStoppingMetric.RECALL_MACRO,
    EarlyStoppingMetric.RECALL_WEIGHTED,
    EarlyStoppingMetric.F1,
    EarlyStoppingMetric.F1_WEIGHTED,
)
TOKEN_METRICS: Final = (EarlyStoppingMetric.LOSS, EarlyStoppingMetric.PERPLEXITY, EarlyStoppingMetric.TOKEN_ACCURACY)


DEFAULT_ROWS: Final = 8
"""Rows of a batch where nothing is said: what fits into little memory."""


CLASSIFIER: Final = "training.earlyStopping.classifier"
"""Where a stage names what judges its answers."""
DEFAULT_PROMPTS: Final = 32
DEFAULT_ANSWER_TOKENS: Final = 64
DEFAULT_ANSWER_LABEL: Final = "answer"


class Classifier(ApiModel):
    uri: Uri
    """A trained sequence classifier that tells answers from mere continuations: a folder (`file://`, `pvc://CLAIM/path`) or `hf://OWNER/NAME`. Safetensors only, no remote code. Example: pvc://models/answers"""
    revision: Revision | None = None
    """Commit, tag or branch of an `hf://` repository. Default: the newest commit, resolved once. Example: main"""
    credentials: Name | None = None
    """The name, in spec.references.secrets, of the Secret with a token for the hub. Default: none. Example: hf"""
    label: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    """The label, of those in its config.json, that means an answer. Default: answer. Example: response"""

    @property
    def answer(self) -> str:
        """The label that means an answer."""
        return self.label or DEFAULT_ANSWER_LABEL


class EarlyStopping(ApiModel):
    metric: Annotated[EarlyStoppingMetric, Field(strict=False)] = EarlyStoppingMetric.LOSS
    """The validation metric: eval_loss; for classification also eval_accuracy, and eval_precision, eval_recall or eval_f1 with _macro or _weighted behind it; for the others eval_perplexity or eval_token_accuracy; for supervised eval_instruction_following too. Default: eval_loss. Example: eval_loss"""
    patience: Annotated[int, Field(ge=1, le=1000)] = 3
    """Evaluations without improvement before the stage ends. Default: 3. Example: 3"""
    threshold: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    """The least change, in the metric's own unit, that counts as an improvement. Default: 0. Example: 0.001"""
    classifier: Classifier | None = None
    """What judges the answers (eval_instruction_following only, which needs it; arXiv 2307.03692). Default: none. Example: {uri: pvc://models/answers, label: answer}"""
    prompts: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Validation prompts that are answered at each measurement, the same each time (with classifier only). Default: 32. Example: 64"""
    max_new_tokens: Annotated[int, Field(ge=1, le=1024)] | None = None
    """Tokens of an answer at most (with classifier only). Default: 64. Example: 128"""

    @property
    def asked(self) -> int:
        """Prompts that are answered at each measurement, at most."""
        return self.prompts or DEFAULT_PROMPTS

    @property
    def answer_tokens(self) -> int:
        """Tokens of an answer, at most."""
        return self.max_new_tokens or DEFAULT_ANSWER_TOKENS


class Training(ApiModel):
    optimizer: Annotated[Optimizer, Field(strict=False)] = Optimizer.ADAMW
    """adamw, adafactor or sgd. Default: adamw. Example: adamw"""
    learning_rate: Annotated[float, Field(gt=0, le=10)] | None = None
    """Peak learning rate. Default: the method's: 1e-4 for lora, 2e-5 for full; docs/methods.md has all. Example: 1.0e-4"""
    lr_scheduler_type: Annotated[LrSchedulerType, Field(strict=False)] = LrSchedulerType.LINEAR
    """linear (decay to zero), cosine, or constant, each after the warm-up. Default: linear. Example: cosine"""
    warmup_steps: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    """Optimizer steps of linear warm-up. Not together with warmupRatio. Example: 100"""
    warmup_ratio: Annotated[float, Field(ge=0, le=1)] | None = None
    """Warm-up as a share of all steps. Default: the method's (docs/methods.md), where warmupSteps is left out too. Example: 0.1"""
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Decoupled weight decay, not on biases and norms. Default: 0. Example: 0.01"""
    adam_beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """AdamW's beta 1. Default: 0.9. Example: 0.9"""
    adam_beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """AdamW's beta 2. Default: 0.999. Example: 0.95"""
    adam_epsilon: Annotated[float, Field(gt=0, le=1)] = 1e-8
    """AdamW's epsilon. Default: 1e-8. Example: 1.0e-8"""
    max_grad_norm: Annotated[float, Field(ge=0, le=1e6)] = 1.0
    """Gradients are clipped to this norm; 0 turns it off. Default: 1.0. Example: 1.0"""
    num_train_epochs: Annotated[float, Field(gt=0, le=10000)] | None = None
    """Passes over the data. Default: 1; not together with maxSteps. Example: 3"""
    max_steps: Annotated[int, Field(ge=1, le=100_000_000)] | None = None
    """Optimizer steps, instead of numTrainEpochs. Example: 1000"""
    per_device_train_batch_size: Annotated[int, Field(ge=1, le=65536)] | None = None
    """Rows (or packed rows) a device takes at once. Default: 8. Example: 4"""
    per_device_eval_batch_size: Annotated[int, Field(ge=1, le=65536)] | None = None
    """Rows a device evaluates at once. Default: perDeviceTrainBatchSize. Example: 16"""
    gradient_accumulation_steps: Annotated[int, Field(ge=1, le=65536)] | None = None
    """Batches whose gradients make one optimizer step; the loss is averaged over all their supervised tokens. Default: 1; where perDeviceTrainBatchSize is left out too, as many as the method is used with (docs/methods.md). Example: 8"""
    mixed_precision: Annotated[MixedPrecision, Field(strict=False)] = MixedPrecision.AUTO
    """auto, no (fp32), bf16 or fp16 autocast. auto: bf16 where the GPU can, else fp16, fp32 on a CPU; what it became is recorded. Default: auto. Example: bf16"""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time. Default: false. Example: true"""
    packing: bool = False
    """Put several short documents into one row of maxLength tokens, without attention between them (best fit decreasing). Refused for architectures where a probe shows leakage. Default: false. Example: true"""
    max_length: Annotated[int, Field(ge=8, le=1_048_576)] | None = None
    """Longest row, in tokens. Default: the model's limit or 2048, whichever is smaller. Example: 2048"""
    group_by_length: bool = False
    """Batch rows of similar length. Default: false. Example: true"""
    early_stopping: EarlyStopping | None = None
    """End the stage when a validation metric no longer improves. Needs data.validation and evalSteps. Default: off. Example: {metric: eval_loss, patience: 3}"""
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    """The model's own dropout (hidden and attention), instead of its configuration's. Default: the model's. Example: 0.1"""
    label_smoothing_factor: Annotated[float, Field(ge=0, lt=1)] | None = None
    """The share of each target that all tokens (classes) get alike, while training (arXiv 1512.00567). Validation and suites are measured without. Default: 0. Example: 0.1"""
    neftune_noise_alpha: Annotated[float, Field(gt=0, le=1000)] | None = None
    """Noise on the embeddings while training, alpha / sqrt(tokens of the row times width) at most (NEFTune, arXiv 2310.05914). 5 to 15 are usual. Default: none. Example: 5"""
    mlm_probability: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of tokens that are masked (maskedLanguageModeling only). Default: 0.15. Example: 0.15"""
    logging_steps: Annotated[int, Field(ge=1, le=1_000_000)] = 10
    """Steps between two points of the loss curve. Default: 10. Example: 10"""

    @property
    def classifier(self) -> Classifier | None:
        """What judges the answers, where early stopping asks for them."""
        return self.early_stopping.classifier if self.early_stopping else None

    @property
    def batch_rows(self) -> int:
        """Rows (or packed rows) that a device takes at once."""
        return self.per_device_train_batch_size or DEFAULT_ROWS

    @property
    def accumulation(self) -> int:
        """Batches of an optimizer step."""
        return self.gradient_accumulation_steps or 1

    @property
    def eval_rows(self) -> int:
        """Rows that a device measures at once."""
        return self.per_device_eval_batch_size or self.batch_rows
