"""Greedy completions, in batches: prompts padded on the left, keys and values cached, and the model left as it was found.

The decoding is declared and complete: greedy, no penalties, no sampling, whatever the model's own generation settings say, because a
figure that depends on a file beside the weights can't be compared between models.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import torch
from peft import PeftType
from torch import nn
from transformers import GenerationConfig, PreTrainedTokenizerBase

from finetune_trainer.engine.losses import unwrapped
from finetune_trainer.evaluation.rows import Rows
from finetune_trainer.methods.peft_models import quiet_peft

DECODING: Final = "greedy, one beam, no penalties"


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Dropout off and no gradients inside; afterwards every module is in the mode in which it was (a frozen adapter may differ from its model)."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def complete(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    device: torch.device,
    end_tokens: Sequence[int] = (),
) -> list[str]:
    """Return the text that the model writes after each prompt (token numbers), special tokens left out. Call it inside `evaluating`.

    It ends at the tokenizer's end token, at the model's own, or at one of `end_tokens` (a chat template may end a turn with another),
    and where the model's positions end: a row that has no room for all of `max_new_tokens` is written alone, and shorter.
    """
    room = (getattr(unwrapped(model).config, "max_position_embeddings", None) or math.inf) - prompt_positions(model)
    limits = [int(max(1, min(max_new_tokens, room - len(prompt) + 1))) for prompt in prompts]
    together: dict[object, list[int]] = {}
    for index, (prompt, limit) in enumerate(zip(prompts, limits, strict=True)):
        alike = len(prompt) if _padded_apart(model) else None
        together.setdefault(alike if limit == max_new_tokens else (index, limit), []).append(index)
    texts = [""] * len(prompts)
    for indexes in together.values():
        found = _batch(model, tokenizer, [prompts[index] for index in indexes], limits[indexes[0]], device, end_tokens)
        for index, text in zip(indexes, found, strict=True):
            texts[index] = text
    return texts


def _padded_apart(model: Any) -> bool:
    """Whether padding on the left would lie between a trained prompt and its row, and move the row away from it: where the prompt is embeddings."""
    kind = getattr(getattr(model, "active_peft_config", None), "peft_type", None)
    return prompt_positions(model) > 0 and kind is not PeftType.PREFIX_TUNING


def prompt_positions(model: Any) -> int:
    """Positions that a trained prompt takes in front of each row."""
    return int(getattr(getattr(model, "active_peft_config", None), "num_virtual_tokens", None) or 0)


def _batch(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    device: torch.device,
    end_tokens: Sequence[int],
) -> list[str]:
    width = max(len(prompt) for prompt in prompts)
    pad = pad_id(tokenizer)
    input_ids = np.full((len(prompts), width), pad, dtype=np.int64)
    mask = np.zeros_like(input_ids)
    for line, prompt in enumerate(prompts):
        input_ids[line, width - len(prompt) :] = prompt
        mask[line, width - len(prompt) :] = 1
    with quiet_peft():
        written = model.generate(
            input_ids=torch.from_numpy(input_ids).to(device),
            attention_mask=torch.from_numpy(mask).to(device),
            generation_config=_greedy(model, tokenizer, max_new_tokens, pad, end_tokens),
        )
    texts: list[str] = tokenizer.batch_decode(written[:, width:].cpu(), skip_special_tokens=True)
    return texts


def prompt_of(rows: Rows, index: int) -> list[int]:
    """The tokens before the last completion."""
    return [int(token) for token in rows.tokens(index)[: rows.prompt_length(index)]]


def reference_of(rows: Rows, index: int, tokenizer: PreTrainedTokenizerBase) -> str:
    """The text of the last completion, special tokens left out."""
    start = rows.prompt_length(index)
    tokens = rows.tokens(index)[start:][rows.supervised(index)[start:]]
    text: str = tokenizer.decode([int(token) for token in tokens], skip_special_tokens=True)
    return text


def own_lines(texts: Sequence[str]) -> list[str]:
    """Each text without the lines that all of them begin or end with; the whole texts where nothing would be left of one."""
    lines = [text.strip().split("\n") for text in texts]
    shortest = min((len(one) for one in lines), default=0)
    if len(lines) < 2:
        return [text.strip() for text in texts]
    head = next((place for place in range(shortest) if len({one[place] for one in lines}) > 1), shortest)
    tail = next((place for place in range(shortest - head) if len({one[-1 - place] for one in lines}) > 1), shortest - head)
    own = ["\n".join(one[head : len(one) - tail]).strip() for one in lines]
    return own if all(own) else [text.strip() for text in texts]


def same(completion: str, reference: str) -> bool:
    """What exactMatch counts: equal texts, but for white space at either end."""
    return completion.strip() == reference.strip()


def pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The pad token; without one any token serves, since padding is masked by position."""
    return int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id or 0)


def _greedy(model: Any, tokenizer: PreTrainedTokenizerBase, max_new_tokens: int, pad: int, end_tokens: Sequence[int]) -> GenerationConfig:
    """Every setting that the model's own generation config could slip in is written out. Its end tokens do count."""
    own = getattr(unwrapped(model), "generation_config", None)
    ends = getattr(own, "eos_token_id", None)
    ends = ends if isinstance(ends, list) else [ends]
    return GenerationConfig(
        max_new_tokens=max_new_tokens,
        min_new_tokens=None,
        do_sample=False,
        num_beams=1,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        use_cache=True,
        pad_token_id=pad,
        eos_token_id=sorted({int(end) for end in (*ends, *end_tokens, tokenizer.eos_token_id) if end is not None}) or None,
    )
