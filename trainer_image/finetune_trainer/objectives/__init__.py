"""Objectives: what a stage learns from its rows. This is their text side; losses are the engine's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from finetune_api.v1alpha1.stage import Objective as Name
from finetune_trainer.objectives.base import Example, Fate, Objective, Options, Outcome, RowError
from finetune_trainer.objectives.causal_language_modeling import CausalLanguageModeling
from finetune_trainer.objectives.classification import Classification
from finetune_trainer.objectives.masked_language_modeling import MaskedLanguageModeling
from finetune_trainer.objectives.supervised import Supervised

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = ["OBJECTIVES", "Document", "Example", "Fate", "Objective", "Options", "Outcome", "RowError", "text_side"]

Document = CausalLanguageModeling | MaskedLanguageModeling
"""Objectives that plain text is for: they cut a document in chunks."""

OBJECTIVES: dict[Name, type[CausalLanguageModeling | MaskedLanguageModeling | Supervised | Classification]] = {
    Name.CAUSAL_LANGUAGE_MODELING: CausalLanguageModeling,
    Name.MASKED_LANGUAGE_MODELING: MaskedLanguageModeling,
    Name.SUPERVISED: Supervised,
    Name.CLASSIFICATION: Classification,
}


def text_side(name: Name, tokenizer: PreTrainedTokenizerFast, options: Options) -> Objective:
    """The text side of an objective. Raises TrainerError where the tokenizer can't serve it."""
    return OBJECTIVES[name](tokenizer, options)
