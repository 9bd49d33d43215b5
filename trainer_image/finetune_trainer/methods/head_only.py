"""Head only: the backbone stays, what stands on it is trained."""

from __future__ import annotations

from torch import nn

from finetune_api.constants import Reason
from finetune_trainer.errors import TrainerError
from finetune_trainer.methods.base import Method, Setting
from finetune_trainer.methods.freezing import train_only


def chosen(setting: Setting) -> set[str]:
    """The head's own weights, and those that had to be made from the seed (a pooler that the base lacks).

    Raises TrainerError(InvalidSpec) where the head has none of its own: a causal model whose projection is tied to the embeddings.
    """
    names = {*setting.plain.head_names, *setting.plain.new}
    if not names:
        raise TrainerError(
            Reason.INVALID_SPEC,
            "headOnly would train nothing: this model's output projection is tied to its embeddings, so training it would change the input too; "
            "use lora or full, or partial with the embeddings among `trained`",
            where=f"{setting.where}.method.type",
        )
    return names


def apply(setting: Setting) -> nn.Module:
    return train_only(setting.plain, chosen(setting), setting.added)


METHOD = Method(apply, check=chosen)
