"""Low-rank adaptation, and its kin that differ in where they start, how they scale, and how fast they learn."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from finetune_api import constants as c
from finetune_api.v1alpha1.methods.common import Alpha, Layers, Modules, Probability, Rank, Targeted


class LoraInitialization(StrEnum):
    DEFAULT = "default"
    GAUSSIAN = "gaussian"
    ORTHOGONAL = "orthogonal"
    OLORA = "olora"
    PISSA = "pissa"
    EVA = "eva"
    CORDA = "corda"


class CordaMode(StrEnum):
    INSTRUCTION_PREVIEWED = "instructionPreviewed"
    KNOWLEDGE_PRESERVED = "knowledgePreserved"


class Lora(Targeted):
    """Low-rank adaptation (Hu et al. 2021, arXiv 2106.09685), as PEFT's LoraConfig has it: a module's update is a product of two narrow matrices.

    The place to begin: it trains a small share of the weights, leaves the base as it is, can be stacked, merged, and published by itself.
    `rsLora` keeps high ranks useful (arXiv 2312.03732), `dora` trains a magnitude beside the direction (arXiv 2402.09353), `initialization: pissa`
    begins in the base's principal singular vectors (arXiv 2404.02948), `olora` in its QR decomposition (arXiv 2406.01775), `orthogonal` in
    orthogonal halves, and `loraPlusRatio` lets B learn faster than A (LoRA+, arXiv 2402.12354). Two look at rows of the stage before its first
    step: `eva` (arXiv 2410.07170) puts the principal directions of a module's inputs into A, and gives ranks to the modules where they explain
    the most, at most rho times r each and as many as before in all; a module that sees one vector a row (a pooler) begins as by default. `corda`
    (arXiv 2406.05223) decomposes the weight times the covariance of its inputs: instructionPreviewed trains the directions that matter most for the
    stage's own rows, knowledgePreserved those that matter least for its replay rows, which stand for what has to be kept. The data are looked at
    once: what was found is in every checkpoint. What pissa, olora and corda take out of the base is recorded, so that they are published as a
    plain update of twice the rank on the untouched base.
    """

    shown: ClassVar[tuple[str, ...]] = ("r", "alpha", "target_modules")

    r: Rank = 16
    """Rank of the update. Default: 16. Example: 16"""
    alpha: Alpha = 32
    """Scale: the update is multiplied by alpha / r (alpha / sqrt(r) with rsLora). Default: 32. Example: 32"""
    dropout: Probability = 0.0
    """Dropout on the adapter's input. Default: 0. Example: 0.05"""
    initialization: Annotated[LoraInitialization, Field(strict=False)] = LoraInitialization.DEFAULT
    """default (B is zero), gaussian, orthogonal (r must be even), olora, pissa (principal singular vectors, exact SVD), eva or corda (from the stage's data). Default: default. Example: pissa"""
    initialization_rows: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Rows that eva and corda look at, drawn by the seed. Default: 256. Example: 512"""
    rho: Annotated[float, Field(ge=1, le=8)] | None = None
    """With eva: the most that a module's rank may be, as a multiple of its own; 1 keeps all ranks. Default: 2. Example: 1"""
    corda_mode: Annotated[CordaMode, Field(strict=False)] | None = None
    """With corda: what the adapter begins with (instructionPreviewed, or knowledgePreserved by replay rows). Default: instructionPreviewed. Example: knowledgePreserved"""
    rs_lora: bool = False
    """Scale by alpha / sqrt(r). Default: false. Example: true"""
    dora: bool = False
    """Decompose into magnitude and direction. Default: false. Example: true"""
    rank_pattern: Annotated[dict[str, Rank], Field(max_length=c.MAX_PATTERNS)] | None = None
    """Other ranks for modules of these names (or endings of names). Default: none. Example: {q_proj: 32}"""
    alpha_pattern: Annotated[dict[str, Alpha], Field(max_length=c.MAX_PATTERNS)] | None = None
    """Other scales for modules of these names (or endings of names). Default: none. Example: {q_proj: 64}"""
    lora_plus_ratio: Annotated[float, Field(ge=1, le=1000)] | None = None
    """Learning rate of the B matrices as a multiple of learningRate, which is that of A. Default: 1. Example: 16"""
    layers_to_transform: Layers | None = None
    """Only modules in the layers of these numbers, from 0. Default: all layers. Example: [22, 23]"""
    modules_to_save: Modules | None = None
    """Modules that are trained whole beside it, and saved with it; a classifier's head always is. Default: none. Example: ["lm_head"]"""

    @property
    def begins_from_data(self) -> bool:
        """Whether it looks at rows of the stage before its first step."""
        return self.initialization in (LoraInitialization.EVA, LoraInitialization.CORDA)

    @property
    def rows_to_begin(self) -> int:
        """How many it looks at."""
        return self.initialization_rows or 256

    @property
    def growth(self) -> float:
        """With eva: the most that a rank may become, as a multiple of what it is."""
        return self.rho or 2.0

    @property
    def directions(self) -> int:
        """With eva: how many directions the rows have to show."""
        return round(max([self.r, *(self.rank_pattern or {}).values()]) * self.growth)

    @property
    def mode(self) -> CordaMode:
        return self.corda_mode or CordaMode.INSTRUCTION_PREVIEWED
