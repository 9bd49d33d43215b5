"""Losses token by token, with logits only where something is predicted.

The vocabulary's projection is a fifth of a small model's work, and most of it is thrown away when only completions are learned from. So a
hook on the model's own output layer gathers the hidden states that predict, before they are projected. The model's own forward runs
unchanged around it (BERT's transform before the projection, Gemma's soft-capping and Granite's scaling after it, PEFT's adapters on it),
so the numbers are the model's. A model whose output layer is not called as a module is gathered from its full logits instead: slower,
never different.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from finetune_trainer.engine.collate import Batch


@dataclass(frozen=True)
class TokenLosses:
    """One entry a prediction, T in all."""

    nll: torch.Tensor
    """(T,) float32: negative log-likelihood of the target, in nats."""
    correct: torch.Tensor
    """(T,) bool: whether the target is the likeliest token."""
    row: torch.Tensor
    """(T,) int64: which of the batch's rows it belongs to."""


def token_losses(model: nn.Module, batch: Batch) -> TokenLosses:
    """Return loss and correctness of every predicted token. For models with a language-modelling head, plain or PEFT-wrapped."""
    logits = token_logits(model, batch)
    return TokenLosses(
        nll=functional.cross_entropy(logits.float(), batch.targets, reduction="none"),
        correct=logits.detach().argmax(-1) == batch.targets,
        row=batch.rows,
    )


def token_logits(model: nn.Module, batch: Batch) -> torch.Tensor:
    """Return (T, vocabulary) logits of the predicting positions, in the model's type."""
    width = int(batch.inputs["input_ids"].shape[1])
    with gathered(model, batch.where, width) as hook:
        logits = _forward(model, batch)
    return logits.flatten(0, -2) if hook.gathered else logits.flatten(0, -2)[behind_prompt(batch.where, width, int(logits.shape[1]))]


def behind_prompt(where: torch.Tensor, width: int, found: int) -> torch.Tensor:
    """Flat positions in rows of `width` tokens, as they are in rows that a trained prompt has lengthened to `found` at their beginning."""
    longer = found - width
    return where + longer * (where // width + 1) if longer else where


def class_logits(model: nn.Module, batch: Batch) -> torch.Tensor:
    """Return (B, classes) logits of a sequence classifier."""
    return _forward(model, batch)


class _Gather:
    """A forward pre-hook: (B, N, H) hidden states become the (1, T, H) that predict."""

    def __init__(self, where: torch.Tensor, width: int) -> None:
        self.where = where
        self.width = width
        self.gathered = False

    def __call__(self, module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden, *rest = arguments
        self.gathered = True
        return (hidden.flatten(0, 1)[behind_prompt(self.where, self.width, int(hidden.shape[1]))][None], *rest)


@contextmanager
def gathered(model: nn.Module, where: torch.Tensor, width: int) -> Iterator[_Gather]:
    """While it is open, the model's output layer projects only these positions of rows of `width` tokens."""
    hook = _Gather(where, width)
    head = output_head(model)
    if head is None:
        yield hook
        return
    handle = head.register_forward_pre_hook(hook)
    try:
        yield hook
    finally:
        handle.remove()


def output_head(model: nn.Module) -> nn.Module | None:
    """The module that projects hidden states on the vocabulary, or None where there is none."""
    getter = getattr(unwrapped(model), "get_output_embeddings", None)
    head = getter() if getter is not None else None
    return head if isinstance(head, nn.Module) else None


def unwrapped(model: nn.Module) -> nn.Module:
    """The transformers model inside wrappers of PEFT and torch.distributed."""
    inner = getattr(model, "module", model)
    base = getattr(inner, "get_base_model", None)
    return base() if base is not None else inner


def _forward(model: nn.Module, batch: Batch) -> torch.Tensor:
    """Logits without a cache: with one, packed documents would see each other, and memory would be kept for nothing."""
    options = {"use_cache": False} if _knows_cache(unwrapped(model).__class__) else {}
    logits: torch.Tensor = model(**batch.inputs, **options).logits
    return logits


@functools.cache
def _knows_cache(kind: Any) -> bool:
    return "use_cache" in inspect.signature(kind.forward).parameters
