"""The Instruction Following Score (arXiv 2307.03692): the share of validation prompts to which a model writes an answer, and not a continuation.

The model answers greedily, the same prompts each time; a trained classifier reads what it wrote, alone and one text at a time, so that no
verdict depends on another. Nothing is drawn: a score that is measured again, after an interruption, is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from finetune_api.v1alpha1.training import EarlyStopping
from finetune_trainer.engine.precision import Precision, autocast
from finetune_trainer.engine.validation import Aborted
from finetune_trainer.evaluation.generation import complete, evaluating, prompt_of
from finetune_trainer.evaluation.rows import Rows


@dataclass(frozen=True)
class Judge:
    """A trained classifier, and its class that means an answer."""

    model: Any
    tokenizer: PreTrainedTokenizerBase
    answer: int
    longest: int | None
    """Tokens that it reads at most; what is longer is cut."""
    device: torch.device

    def is_answer(self, text: str) -> bool:
        """Whether the text is an answer. Nothing at all is none."""
        tokens = self.tokenizer(text.strip()).input_ids[: self.longest] if text.strip() else []
        if not tokens:
            return False
        ids = torch.tensor([tokens], device=self.device)
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            logits = self.model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        return int(logits[0].argmax()) == self.answer


@dataclass(frozen=True)
class InstructionFollowing:
    """How a stage's score is measured."""

    judge: Judge
    tokenizer: PreTrainedTokenizerBase
    """Of the model that answers."""
    rows: Rows
    """Validation rows with prompts."""
    rule: EarlyStopping
    end_tokens: list[int]
    precision: Precision
    device: torch.device
    batch_size: int

    def __call__(self, model: nn.Module, should_stop: Callable[[], bool], on_prompts: Callable[[int, int], None]) -> float:
        """The share of answers; the model is left in the mode in which it was. `on_prompts`: told how many of how many are done. Raises Aborted."""
        chosen = spread(len(self.rows), self.rule.asked)
        answers = 0
        with evaluating(model), autocast(self.precision, self.device):
            for start in range(0, len(chosen), self.batch_size):
                if should_stop():
                    raise Aborted
                prompts = [prompt_of(self.rows, index) for index in chosen[start : start + self.batch_size]]
                texts = complete(
                    model,
                    self.tokenizer,
                    prompts,
                    max_new_tokens=self.rule.answer_tokens,
                    device=self.device,
                    end_tokens=self.end_tokens,
                )
                answers += sum(map(self.judge.is_answer, texts))
                on_prompts(start + len(prompts), len(chosen))
        return answers / len(chosen)


def spread(rows: int, asked: int) -> list[int]:
    """At most so many rows, evenly over all of them: sources stand one after the other."""
    count = min(rows, asked)
    return [place * rows // count for place in range(count)]
