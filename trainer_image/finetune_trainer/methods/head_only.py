"""Head only: the backbone stays, what stands on it is trained."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from finetune_api.constants import Reason
from finetune_api.v1alpha1.stage import Stage
from finetune_trainer.errors import TrainerError
from finetune_trainer.methods.freezing import train_only
from finetune_trainer.modeling.base import Plain
from finetune_trainer.modeling.start import Start


def apply(plain: Plain, stage: Stage, *, start: Start, added: Sequence[int], seed: int, where: str) -> nn.Module:
    """Train the head's own weights, and those that had to be made from the seed (a pooler that the base lacks).

    Raises TrainerError(InvalidSpec) where the head has none of its own: a causal model whose projection is tied to the embeddings.
    """
    names = {*plain.head_names, *plain.new}
    if not names:
        raise TrainerError(
            Reason.INVALID_SPEC,
            "headOnly would train nothing: this model's output projection is tied to its embeddings, so training it would change the input too; "
            "use lora or full, or partial with the embeddings among `trained`",
            where=f"{where}.method.type",
        )
    return train_only(plain, names, added)
