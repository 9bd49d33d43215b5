"""Low-rank adaptation on a base whose linear layers are kept in four or eight bits."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from finetune_api.v1alpha1.methods.common import Alpha, Probability, Rank, Targeted


class Quantization(StrEnum):
    NF4 = "nf4"
    INT8 = "int8"
    TORCHAO_INT8 = "torchaoInt8"


class QloraInitialization(StrEnum):
    DEFAULT = "default"
    GAUSSIAN = "gaussian"
    ORTHOGONAL = "orthogonal"
    PISSA = "pissa"
    LOFTQ = "loftq"


class Qlora(Targeted):
    """LoRA on a frozen base in few bits (QLoRA, Dettmers et al. 2023, arXiv 2305.14314): for a model that fits the GPU no other way.

    The linear layers of all blocks are kept in `nf4` (bitsandbytes: half a byte a weight, with double quantisation about 0.52 in all),
    `int8` (bitsandbytes' LLM.int8(), arXiv 2208.07339) or `torchaoInt8` (torchao's weight-only int8); what is trained is fp32. Each step computes
    the weights again, so that it is slower than LoRA on a base that fits. Suites are measured with the quantised base. Merged and handed over, the
    adapter goes onto the base as it is in its files, in fp32, and how far that is from what was trained is in the report and the card.
    `initialization: pissa` quantises the residual (arXiv 2404.02948), `loftq` begins where quantisation errs least (arXiv 2310.08659) and needs a GPU.
    """

    shown: ClassVar[tuple[str, ...]] = ("quantization", "r", "alpha", "target_modules")

    quantization: Annotated[Quantization, Field(strict=False)] = Quantization.NF4
    """How the base is kept. Default: nf4. Example: nf4"""
    double_quantization: bool | None = None
    """nf4: quantise its scales too. Default: true with nf4, but with loftq. Example: false"""
    r: Rank = 16
    """Rank of the update. Default: 16. Example: 16"""
    alpha: Alpha = 32
    """Scale: the update is multiplied by alpha / r (alpha / sqrt(r) with rsLora). Default: 32. Example: 32"""
    dropout: Probability = 0.0
    """Dropout on the adapter's input. Default: 0. Example: 0.05"""
    initialization: Annotated[QloraInitialization, Field(strict=False)] = QloraInitialization.DEFAULT
    """default (B is zero), gaussian, orthogonal, pissa, or loftq (nf4 alone, on a GPU). Default: default. Example: loftq"""
    loftq_iterations: Annotated[int, Field(ge=1, le=20)] | None = None
    """loftq: how often it quantises and decomposes in turn. Default: 1. Example: 5"""
    rs_lora: bool = False
    """Scale by alpha / sqrt(r). Default: false. Example: true"""
    dora: bool = False
    """Decompose into magnitude and direction; not with int8. Default: false. Example: true"""

    @property
    def doubled(self) -> bool:
        """Whether the scales of nf4 are quantised too. LoftQ counts the error without that."""
        chosen = self.double_quantization
        return self.quantization is Quantization.NF4 and (
            self.initialization is not QloraInitialization.LOFTQ if chosen is None else chosen
        )
