"""The words of the support table: what each method leaves, how it may be handed over, and where it does not work and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from finetune_api.v1alpha1.methods.common import Options
from finetune_api.v1alpha1.methods.qlora import Quantization
from finetune_api.v1alpha1.objective import Objective


class Family(StrEnum):
    """Architectures that the table is tried on. Others count as the nearest: an encoder as BERT, a decoder as LLaMA."""

    GPT2 = "gpt2"
    LLAMA = "llama"
    MISTRAL = "mistral"
    QWEN = "qwen3"
    BERT = "bert"


USUAL_WARMUP: Final = 0.3
"""A greater share of the steps is warned of: three times the largest that is in use."""
DECODERS: Final = (Family.GPT2, Family.LLAMA, Family.MISTRAL, Family.QWEN)


class Continues(StrEnum):
    """Before which stages a method may hand over by `continue`."""

    ANYTHING = "anything"
    """What it trained is the model's own weights."""
    ITSELF = "itself"
    """The same adapter trains on: the next stage writes the same method with the same options."""
    NOTHING = "nothing"


class Because(StrEnum):
    """Why a cell is refused: it was tried and fails, or it would run and mean nothing."""

    IMPOSSIBLE = "impossible"
    MEANINGLESS = "meaningless"


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Cells of the table in which a method does not work: all objectives or families where none are named."""

    because: Because
    why: str
    objectives: tuple[Objective, ...] = ()
    families: tuple[Family, ...] = ()

    def covers(self, objective: Objective, family: Family) -> bool:
        return (not self.objectives or objective in self.objectives) and (not self.families or family in self.families)


@dataclass(frozen=True, kw_only=True)
class Row:
    """A method's row of the table."""

    options: type[Options] | None = None
    """The variant of the union with its options; None where it has none."""
    required: str = ""
    """How to write the options, where a stage cannot leave them out."""
    learning_rate: float
    """The default."""
    usual: tuple[float, float]
    """Rates outside are warned of: wide around what is in use."""
    batch: int
    """Rows of an optimizer step, where a stage says nothing of batches."""
    warmup: float
    """The default share of the steps in which the rate rises."""
    source: str
    """Who uses what, as far as it was looked up: a sentence for people."""
    adapter: bool = False
    """Whether it leaves the base alone and can be published as an adapter."""
    exact: bool = False
    """Whether it trains weights of the backbone themselves, so that these are loaded in fp32 whatever the base is kept in."""
    merges: bool = False
    """Whether its adapter can be folded into the base's weights."""
    stacks: bool = False
    """Whether its adapter can lie frozen under another, and over one."""
    continues: Continues = Continues.ANYTHING
    backbone: bool = True
    """Whether it changes weights of the backbone, or adds to them: what only stands on it has nothing else to hand over."""
    quantizations: tuple[Quantization, ...] = ()
    """What the base under it can be kept in; without any it is never quantised."""
    packs: bool = True
    """Whether several documents may share a row."""
    recomputes: bool = True
    """Whether layers may be computed again in the backward pass."""
    refused: tuple[Refusal, ...] = ()
    about: str = ""
    """The method's section in the documentation, where it has no options to carry it."""

    @property
    def usual_batch(self) -> tuple[int, int]:
        """Rows of a step outside are warned of."""
        return self.batch // 8, self.batch * 32

    @property
    def folds(self) -> bool:
        """Whether what it trained is, or can become, weights of a plain model."""
        return self.merges or not self.adapter

    @property
    def scales(self) -> bool:
        """Whether its change of the weights is a difference of which a part can be handed over."""
        return self.folds and self.backbone

    def refusal(self, objective: Objective, family: Family) -> Refusal | None:
        """Why this cell is refused, or None where it works."""
        return next((refusal for refusal in self.refused if refusal.covers(objective, family)), None)

    def refused_objectives(self) -> Sequence[tuple[Objective, Refusal]]:
        """Objectives that it cannot have on any family: known from the manifest alone."""
        return [(objective, refusal) for refusal in self.refused if not refusal.families for objective in refusal.objectives or Objective]
