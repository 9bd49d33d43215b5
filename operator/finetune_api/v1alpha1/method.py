"""How a stage changes the model: the union of the methods, and the one table of what each can do.

A method is a name here with its row and its field, a file of options in `methods`, a file of code in the trainer, an example, and a table of
tests. Validation, CEL, docs/methods.md and the tests of the allowed cells are made from TABLE; nothing else knows a method by name.
"""

from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import Field

from finetune_api.base import ApiModel
from finetune_api.v1alpha1.methods.common import Options
from finetune_api.v1alpha1.methods.layers import Bottleneck, Full, Gradual, Weights
from finetune_api.v1alpha1.methods.lora import Lora
from finetune_api.v1alpha1.methods.partial import Partial
from finetune_api.v1alpha1.methods.prompts import PrefixTuning, PromptTuning, PTuning
from finetune_api.v1alpha1.methods.qlora import Qlora, Quantization
from finetune_api.v1alpha1.methods.updates import AdaLora, AfLora, Boft, C3a, FourierFt, Gralora, Hra, LoHa, LoKr, Oft, Vera
from finetune_api.v1alpha1.methods.vectors import Ia3, LnTuning, TrainableTokens
from finetune_api.v1alpha1.objective import Objective
from finetune_api.v1alpha1.support import DECODERS, Because, Continues, Family, Refusal, Row


class MethodType(StrEnum):
    FULL = "full"
    GRADUAL = "gradual"
    PARTIAL = "partial"
    HEAD_ONLY = "headOnly"
    LORA = "lora"
    QLORA = "qlora"
    ADALORA = "adalora"
    LOHA = "loha"
    LOKR = "lokr"
    VERA = "vera"
    OFT = "oft"
    BOFT = "boft"
    HRA = "hra"
    FOURIERFT = "fourierft"
    C3A = "c3a"
    GRALORA = "gralora"
    AFLORA = "aflora"
    ADAPTER = "adapter"
    IA3 = "ia3"
    LN_TUNING = "lnTuning"
    PROMPT_TUNING = "promptTuning"
    PREFIX_TUNING = "prefixTuning"
    P_TUNING = "pTuning"
    TRAINABLE_TOKENS = "trainableTokens"

    @property
    def attribute(self) -> str:
        """The name of its options in Method, and of its module in the trainer."""
        return self.name.lower()


_TURNED: Final = Refusal(
    because=Because.IMPOSSIBLE,
    families=(Family.GPT2,),
    why="PEFT puts it on linear modules only, and GPT-2 keeps its weights turned round (Conv1D)",
)
_MASKED_PROMPT: Final = Refusal(
    because=Because.IMPOSSIBLE,
    objectives=(Objective.MASKED_LANGUAGE_MODELING,),
    why="PEFT has no task of masked language modelling for a trained prompt",
)
_LAST_TOKEN: Final = Refusal(
    because=Because.MEANINGLESS,
    objectives=(Objective.CLASSIFICATION,),
    families=DECODERS,
    why="behind a prompt of embeddings a decoder's classifier cannot tell the row's last token from padding, and would read the padding",
)


_FULL: Final[dict[str, Any]] = {
    "learning_rate": 2e-5,
    "usual": (1e-6, 5e-4),
    "batch": 16,
    "warmup": 0.1,
    "source": "Devlin et al. 2018 (arXiv 1810.04805, appendix A.3) use 2e-5 to 5e-5 with 16 or 32 rows a step",
}
_LORA: Final[dict[str, Any]] = {
    "batch": 16,
    "warmup": 0.06,
    "source": "LoRA's authors use 5e-4 with a warm-up of 0.06 on MNLI (arXiv 2106.09685), PEFT's comparison of methods 1e-4",
}
_AS_LORA: Final = _LORA | {"source": "batch and warm-up are LoRA's; PEFT's comparison of methods uses 1e-4"}
_ADAPTER: Final[dict[str, Any]] = {
    "batch": 32,
    "warmup": 0.1,
    "source": "Houlsby et al. 2019 (arXiv 1902.00751) use 3e-5 to 3e-3 with 32 rows a step and a warm-up of 0.1",
}
_IA3: Final[dict[str, Any]] = {
    "batch": 8,
    "warmup": 0.06,
    "source": "Liu et al. 2022 (arXiv 2205.05638) use 3e-3 with 8 rows a step and a warm-up of 0.06",
}


def _update(options: type[Options], *, rate: float = 1e-4, usual: tuple[float, float] = (1e-6, 1e-2), **more: Any) -> Row:
    """A relative of LoRA: an adapter that can be merged, and trained on as it is, but neither stacked nor made another's."""
    return Row(
        options=options, learning_rate=rate, usual=usual, adapter=True, merges=True, **(_AS_LORA | {"continues": Continues.ITSELF} | more)
    )


def _prompt(options: type[Options], *refused: Refusal, **more: Any) -> Row:
    """Something in front of the rows: published and trained on as it is, and nothing else."""
    return Row(
        options=options,
        learning_rate=1e-2,
        usual=(1e-6, 3.0),
        batch=32,
        warmup=0.0,
        source="Lester et al. 2021 (arXiv 2104.08691) use 0.3 with 32 rows a step and no warm-up, for prompt tuning; PEFT's comparison of methods 5e-5 to 5e-3",
        adapter=True,
        packs=False,
        continues=Continues.ITSELF,
        refused=refused,
        **more,
    )


TABLE: Final[dict[MethodType, Row]] = {
    MethodType.FULL: Row(options=Full, **_FULL, exact=True),
    MethodType.GRADUAL: Row(
        options=Gradual,
        required="gradual: {everySteps: 100} or gradual: {everyEpochs: 0.5}",
        **_FULL,
        exact=True,
    ),
    MethodType.PARTIAL: Row(
        options=Partial,
        required="partial: {trained: [PATTERN, …]}, {frozen: [PATTERN, …]}, {lastLayers: 4} or {share: 0.25}",
        **_FULL,
        exact=True,
    ),
    MethodType.HEAD_ONLY: Row(
        **_FULL
        | {
            "learning_rate": 1e-3,
            "usual": (1e-5, 1e-1),
            "source": "batch and warm-up are full tuning's, the rate is this project's: Tomihari and Sato 2024 (arXiv 2405.16747) fit the head by logistic regression, without one",
        },
        backbone=False,
        about="Feature extraction: the backbone stays, what stands on it is trained. Refused where the output projection is tied to the embeddings.",
    ),
    MethodType.LORA: _update(Lora, stacks=True, **_LORA),
    MethodType.QLORA: _update(Qlora, stacks=True, quantizations=tuple(Quantization), source="rate, batch and warm-up are LoRA's"),
    MethodType.ADALORA: _update(AdaLora, rate=1e-3, usual=(1e-5, 1e-2), continues=Continues.NOTHING),
    MethodType.LOHA: _update(LoHa, refused=(_TURNED,)),
    MethodType.LOKR: _update(LoKr, refused=(_TURNED,)),
    MethodType.VERA: _update(Vera, rate=1e-3, usual=(1e-5, 1e-1)),
    MethodType.OFT: _update(Oft, refused=(_TURNED,)),
    MethodType.BOFT: _update(Boft, refused=(_TURNED,)),
    MethodType.HRA: _update(Hra, refused=(_TURNED,)),
    MethodType.FOURIERFT: _update(
        FourierFt,
        rate=3e-3,
        usual=(1e-5, 3.0),
        source="scripts on the authors' code (arXiv 2405.03003) use 0.05 to 0.3 and a warm-up of 0.06, PEFT's comparison of methods 1e-4",
    ),
    MethodType.C3A: _update(
        C3a,
        rate=1e-1,
        usual=(1e-3, 3.0),
        source="PEFT's page of C3A begins at 0.1, its comparison of methods uses 0.3; batch and warm-up are LoRA's",
        refused=(_TURNED,),
    ),
    MethodType.GRALORA: _update(Gralora, source="batch and warm-up are LoRA's; PEFT's comparison of methods uses 2e-4"),
    MethodType.AFLORA: _update(
        AfLora,
        rate=1e-3,
        usual=(1e-5, 3e-2),
        continues=Continues.NOTHING,
        source="its authors' scripts (of arXiv 2403.13269) use 1e-3 to 2e-2 with 64 rows on a device and a warm-up of 0.06 on GLUE, 2e-3 on mathematics with LLaMA; "
        "16 rows are LoRA's",
    ),
    MethodType.ADAPTER: Row(
        options=Bottleneck, learning_rate=1e-4, usual=(1e-6, 3e-2), **_ADAPTER, adapter=True, continues=Continues.ITSELF
    ),
    MethodType.IA3: _update(Ia3, rate=3e-3, usual=(1e-4, 1e-1), **_IA3),
    MethodType.LN_TUNING: _update(LnTuning, rate=1e-3, usual=(1e-5, 1e-1)),
    MethodType.PROMPT_TUNING: _prompt(PromptTuning, _MASKED_PROMPT, _LAST_TOKEN),
    MethodType.PREFIX_TUNING: _prompt(PrefixTuning, _MASKED_PROMPT, recomputes=False),
    MethodType.P_TUNING: _prompt(PTuning, _MASKED_PROMPT, _LAST_TOKEN),
    MethodType.TRAINABLE_TOKENS: Row(
        options=TrainableTokens,
        required="trainableTokens: {tokens: [TOKEN, …]}",
        **_FULL | {"learning_rate": 1e-3, "usual": (1e-5, 3.0), "source": "PEFT's comparison of methods uses 0.2"},
    ),
}
"""The support table."""


class Method(ApiModel):
    type: Annotated[MethodType, Field(strict=False)]
    """The method; docs/methods.md says what each is for. Example: lora"""
    full: Full | None = None
    """Options of `type: full`. Default: fp32, one learning rate for all. Example: {layerDecay: 0.9}"""
    gradual: Gradual | None = None
    """Options of `type: gradual`, required there. Example: {everySteps: 100}"""
    partial: Partial | None = None
    """Options of `type: partial`, required there. Example: {trained: ["lm_head.*"]}"""
    lora: Lora | None = None
    """Options of `type: lora`. Default: rank 16, alpha 32, on all linear modules. Example: {r: 16, alpha: 32}"""
    qlora: Qlora | None = None
    """Options of `type: qlora`. Default: a base in nf4, else as lora. Example: {quantization: nf4, r: 16}"""
    adalora: AdaLora | None = None
    """Options of `type: adalora`. Default: ranks from 12 to 8. Example: {initR: 12, targetR: 8}"""
    loha: LoHa | None = None
    """Options of `type: loha`. Default: rank 8. Example: {r: 8}"""
    lokr: LoKr | None = None
    """Options of `type: lokr`. Default: rank 8. Example: {r: 8}"""
    vera: Vera | None = None
    """Options of `type: vera`. Default: rank 256. Example: {r: 256}"""
    oft: Oft | None = None
    """Options of `type: oft`. Default: blocks of 32. Example: {blockSize: 32}"""
    boft: Boft | None = None
    """Options of `type: boft`. Default: blocks of 4. Example: {blockSize: 4}"""
    hra: Hra | None = None
    """Options of `type: hra`. Default: 8 reflections. Example: {r: 8}"""
    fourierft: FourierFt | None = None
    """Options of `type: fourierft`. Default: 1000 coefficients. Example: {nFrequency: 1000}"""
    c3a: Annotated[C3a | None, Field(alias="c3a")] = None  # else c3A: a letter after a digit begins a word
    """Options of `type: c3a`. Default: blocks of 64. Example: {blockSize: 64}"""
    gralora: Gralora | None = None
    """Options of `type: gralora`. Default: rank 32, 2 × 2 blocks. Example: {r: 32, k: 2}"""
    aflora: AfLora | None = None
    """Options of `type: aflora`. Default: rank 8. Example: {r: 8}"""
    adapter: Bottleneck | None = None
    """Options of `type: adapter`. Default: pfeiffer, width 64. Example: {place: houlsby, size: 64}"""
    ia3: Ia3 | None = None
    """Options of `type: ia3`. Default: the modules that PEFT has for the architecture. Example: {targetModules: ["k_proj", "v_proj"]}"""
    ln_tuning: LnTuning | None = None
    """Options of `type: lnTuning`. Default: every norm. Example: {targetModules: ["input_layernorm"]}"""
    prompt_tuning: PromptTuning | None = None
    """Options of `type: promptTuning`. Default: 20 random embeddings. Example: {numVirtualTokens: 20}"""
    prefix_tuning: PrefixTuning | None = None
    """Options of `type: prefixTuning`. Default: 20 positions. Example: {numVirtualTokens: 20}"""
    p_tuning: PTuning | None = None
    """Options of `type: pTuning`. Default: 20 positions. Example: {numVirtualTokens: 20}"""
    trainable_tokens: TrainableTokens | None = None
    """Options of `type: trainableTokens`, required there. Example: {tokens: ["ticket"]}"""

    @property
    def row(self) -> Row:
        return TABLE[self.type]

    @property
    def options(self) -> Options | None:
        """The options of its own variant as they are written, or None."""
        found: Options | None = getattr(self, self.type.attribute, None)
        return found

    @property
    def words(self) -> list[str]:
        """What distinguishes it, its name first. Example: lora, r 16, alpha 32, all-linear"""
        return [str(self.type), *(self.options.words() if self.options is not None else ())]

    @property
    def positions(self) -> int:
        """How many of the model's positions it takes in front of each row."""
        return int(getattr(self.resolved().options, "num_virtual_tokens", 0))

    @property
    def weights(self) -> Weights:
        """What the weights that it trains are kept in."""
        return getattr(self.options, "weights", None) or Weights.FP32

    def resolved(self) -> "Method":
        """Fill in options that were left out."""
        kind = self.row.options
        if kind is None or self.options is not None or self.row.required:
            return self
        return self.model_copy(update={self.type.attribute: kind()})

    @property
    def asks_the_model(self) -> bool:
        """Whether it depends on the model if this can be done: full, and lora as it is by default, fit every model."""
        kind = self.row.options
        return self.type not in (MethodType.FULL, MethodType.LORA) or (
            self.options is not None and kind is not None and self.options != kind()
        )
