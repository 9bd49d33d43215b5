"""Is packing exact for this model? Asked of the loaded model itself, with two documents.

Llama, Qwen3 and GPT-2 keep packed documents apart by positions that start anew, Gemma 3 only so, OPT and ModernBERT only by a block mask,
BLOOM and Mamba by neither. Guessing by name would be wrong for the next architecture; a probe costs two short forward passes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from finetune_api.constants import Reason
from finetune_trainer.engine.collate import Collator, Packing
from finetune_trainer.engine.losses import token_logits
from finetune_trainer.errors import TrainerError

TOLERANCE = 1e-5
"""Largest difference of a log-probability (fp32, in nats) that counts as none: 1.4e-6 was seen where packing is exact, 0.5 and more where not."""
LENGTHS = (13, 21)


class _Documents:
    """Documents of random tokens, all of them predicted."""

    def __init__(self, vocabulary: int) -> None:
        generator = np.random.default_rng(0)
        self._tokens = [generator.integers(0, vocabulary, length).astype(np.int32) for length in LENGTHS]
        self.lengths = np.array(LENGTHS, np.int32)

    def __len__(self) -> int:
        return len(self._tokens)

    def tokens(self, index: int) -> npt.NDArray[np.int32]:
        return self._tokens[index]

    def supervised(self, index: int) -> npt.NDArray[np.bool_]:
        return np.ones(LENGTHS[index], np.bool_)

    def label(self, index: int) -> int:
        return -1

    def id(self, index: int) -> str:
        return str(index)


def packing_for(model: nn.Module, collator: Collator, *, vocabulary: int, device: torch.device, where: str = "training.packing") -> Packing:
    """Return the way to pack that is exact for this model. Raises TrainerError(PackingUnsafe) where none is."""
    seen: dict[Packing, str] = {}
    for packing in Packing:
        try:
            difference = leakage(model, replace(collator, packing=packing), vocabulary=vocabulary, device=device)
        except (RuntimeError, ValueError, TypeError) as error:  # the model does not take such a mask, or no position_ids
            seen[packing] = f"refused it ({error})"
            continue
        if difference <= TOLERANCE:
            return packing
        seen[packing] = f"{difference:.2g}"
    found = ", ".join(f"by {packing}: {what}" for packing, what in seen.items())
    raise TrainerError(
        Reason.PACKING_UNSAFE,
        f"packed documents change each other's log-probabilities in this model (largest difference {found}; at most {TOLERANCE:.0e} is exact)",
        where=where,
    )


def leakage(model: nn.Module, collator: Collator, *, vocabulary: int, device: torch.device) -> float:
    """Largest difference of a log-probability between two documents packed together and each alone, in fp32."""
    documents = _Documents(vocabulary)
    with _probed(model):
        together = token_logits(model, collator.packed(documents, [[0, 1]]).to(device)).log_softmax(-1)
        alone = [token_logits(model, collator(documents, [index]).to(device)).log_softmax(-1) for index in range(2)]
    return float((together - torch.cat(alone)).abs().max())


def padding_is_harmless(model: nn.Module, collator: Collator, *, vocabulary: int, device: torch.device) -> bool:
    """Whether padding on the right changes nothing without a mask, as in a causal model: then attention needs none and runs faster."""
    documents = _Documents(vocabulary)
    batches = [replace(collator, needs_mask=needed, packing=None)(documents, [0, 1]).to(device) for needed in (True, False)]
    with _probed(model):
        masked, bare = (token_logits(model, batch).log_softmax(-1) for batch in batches)
    return float((masked - bare).abs().max()) <= TOLERANCE


@contextmanager
def _probed(model: nn.Module) -> Iterator[None]:
    """The model in fp32 (bf16's own noise is a thousand times the tolerance), without dropout and gradients; then as it was."""
    training = model.training
    types = {parameter: parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()}
    model.eval()
    _cast(dict.fromkeys(types, torch.float32))
    try:
        with torch.no_grad():
            yield
    finally:
        _cast(types)
        model.train(training)


def _cast(types: dict[nn.Parameter, torch.dtype]) -> None:
    for parameter, dtype in types.items():
        parameter.data = parameter.data.to(dtype)
