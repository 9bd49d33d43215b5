"""How a stage changes the model: all of it, a low-rank update, the head alone, or a chosen part."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from finetune_api import constants as c
from finetune_api.base import ApiModel
from finetune_api.v1alpha1.types import Pattern


class MethodType(StrEnum):
    FULL = "full"
    LORA = "lora"
    HEAD_ONLY = "headOnly"
    PARTIAL = "partial"


class LoraInitialization(StrEnum):
    DEFAULT = "default"
    GAUSSIAN = "gaussian"
    PISSA = "pissa"


class Lora(ApiModel):
    """Low-rank adaptation (Hu et al. 2021, arXiv 2106.09685), as PEFT's LoraConfig has it."""

    r: Annotated[int, Field(ge=1, le=1024)] = 16
    """Rank of the update. Default: 16. Example: 16"""
    alpha: Annotated[float, Field(gt=0, le=4096)] = 32
    """Scale: the update is multiplied by alpha / r (alpha / sqrt(r) with rsLora). Default: 32. Example: 32"""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout on the adapter's input. Default: 0. Example: 0.05"""
    target_modules: Annotated[list[Pattern], Field(min_length=1, max_length=c.MAX_PATTERNS)] = ["all-linear"]
    """Names (or endings of names) of the linear modules that get an adapter; ["all-linear"] means every one but the head. Default: ["all-linear"]. Example: ["q_proj", "v_proj"]"""
    initialization: Annotated[LoraInitialization, Field(strict=False)] = LoraInitialization.DEFAULT
    """default (B is zero), gaussian, or pissa (principal singular vectors, exact SVD; arXiv 2404.02948). Default: default. Example: pissa"""
    rs_lora: bool = False
    """Scale by alpha / sqrt(r) (arXiv 2312.03732). Default: false. Example: true"""
    dora: bool = False
    """Decompose into magnitude and direction (arXiv 2402.09353). Default: false. Example: true"""


class Partial(ApiModel):
    """Choose parameters by patterns of their names (shell globs, `*` matches dots too). Write one of the two lists."""

    trained: Annotated[list[Pattern], Field(min_length=1, max_length=c.MAX_PATTERNS)] | None = None
    """Only parameters whose name matches one of these are trained. Example: ["model.layers.2?.*", "lm_head.*"]"""
    frozen: Annotated[list[Pattern], Field(min_length=1, max_length=c.MAX_PATTERNS)] | None = None
    """All parameters but those that match one of these are trained. Example: ["model.embed_tokens.*"]"""


class Method(ApiModel):
    type: Annotated[MethodType, Field(strict=False)]
    """full (every weight), lora (a low-rank adapter), headOnly (the task head alone), or partial (chosen parameters). Example: lora"""
    lora: Lora | None = None
    """Options of `type: lora`. Default: rank 16, alpha 32, on all linear modules. Example: {r: 16, alpha: 32}"""
    partial: Partial | None = None
    """Options of `type: partial`, required there. Example: {trained: ["lm_head.*"]}"""
