"""Rows of chosen tokens. PEFT's own drops the bias of a projection that is tied to the embeddings (BERT's): this is what added tokens have."""

from __future__ import annotations

from torch import nn

from finetune_api.constants import Reason
from finetune_trainer.errors import TrainerError
from finetune_trainer.methods.base import Method, Setting
from finetune_trainer.methods.freezing import train_only
from finetune_trainer.modeling.start import Head


def token_ids(setting: Setting) -> list[int]:
    """Numbers of the tokens. Raises TrainerError(InvalidSpec) for what is no token of the vocabulary."""
    options = setting.stage.method.trainable_tokens
    known = setting.tokenizer.get_vocab()
    names = options.tokens if options is not None else []
    unknown = [name for name in names if name not in known]
    if unknown:
        pieces = setting.tokenizer.tokenize(unknown[0])
        raise TrainerError(
            Reason.INVALID_SPEC,
            f"{unknown[0]!r} is no token of this model's vocabulary, which writes it as {', '.join(map(repr, pieces)) or 'nothing'}: "
            "name one of these, or add it by tokenizer.addTokens",
            where=setting.field("tokens"),
        )
    return sorted({known[name] for name in names})


def apply(setting: Setting) -> nn.Module:
    """Train these rows, those of added tokens, and a head that classifies."""
    plain = setting.plain
    head = plain.head_names if plain.head is Head.CLASSIFICATION else []
    return train_only(plain, {*head, *plain.new}, sorted({*token_ids(setting), *setting.added}))


METHOD = Method(apply, check=token_ids)
