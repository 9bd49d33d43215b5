"""Methods that train a few vectors of the network: activations' scales, norms, rows of the vocabulary."""

from typing import Annotated

from pydantic import Field

from finetune_api import constants as c
from finetune_api.v1alpha1.methods.common import Modules, Options
from finetune_api.v1alpha1.types import Token


class Ia3(Options):
    """(IA)³ (Liu et al. 2022, arXiv 2205.05638): keys, values and the feed-forward layer's inner activations are scaled by trained vectors.

    A few vectors, for tasks that the model nearly knows. It wants a higher rate than LoRA, and can be merged.
    """

    target_modules: Modules | None = None
    """Names (or endings of names) of the linear modules whose outputs are scaled. Default: what PEFT has for the architecture (keys, values, the second feed-forward layer). Example: ["k_proj", "v_proj", "down_proj"]"""
    feedforward_modules: Modules | None = None
    """Those among them whose inputs are scaled instead. Default: with targetModules left out, what PEFT has for the architecture; else none. Example: ["down_proj"]"""


class LnTuning(Options):
    """Tuning of the norms alone (Zhao et al. 2023, arXiv 2312.11420): their scales, and their biases where they have any.

    The cheapest change that reaches every layer; it adapts style and domain more than knowledge.
    """

    target_modules: Modules | None = None
    """Names (or endings of names) of the norms. Default: every one of the backbone. Example: ["input_layernorm"]"""


class TrainableTokens(Options):
    """Train the rows of chosen tokens in the embeddings (and in the output projection), and nothing else.

    For words that a domain uses in a sense of its own, beside or before another stage. Tokens that `tokenizer.addTokens` adds are trained by
    every method, and need not be named. The rows become the model's own weights: nothing is left to merge.
    """

    tokens: Annotated[list[Token], Field(min_length=1, max_length=c.MAX_ADDED_TOKENS)]
    """Tokens of the vocabulary, each exactly one. Example: ["ticket", "Ġorder"]"""
