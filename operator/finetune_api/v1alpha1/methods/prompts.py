"""Methods that train something in front of the rows, and leave the model as it is."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from finetune_api.v1alpha1.methods.common import Options, Probability, Tokens


class PromptInitialization(StrEnum):
    RANDOM = "random"
    VOCABULARY = "vocabulary"
    TEXT = "text"


class Prompt(Options):
    """What methods with a prompt in front share."""

    num_virtual_tokens: Tokens = 20
    """Positions of the trained prompt; the model's longest row is shorter by as many. Default: 20. Example: 20"""


class PromptTuning(Prompt):
    """Prompt tuning (Lester et al. 2021, arXiv 2104.08691): embeddings in front of every row are trained, from random ones or from a text.

    A very small artifact, many of which share one base. It wants a high rate, and cannot be merged,
    stacked, or handed to another method.
    """

    initialization: Annotated[PromptInitialization, Field(strict=False)] = PromptInitialization.RANDOM
    """random (normal), vocabulary (embeddings of tokens drawn from the seed), or text. Default: random. Example: text"""
    text: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    """The text whose tokens' embeddings it begins with, repeated or cut to numVirtualTokens. Required by initialization: text. Example: "Define the word: " """


class PrefixTuning(Prompt):
    """Prefix tuning (Li and Liang 2021, arXiv 2101.00190): keys and values in front of every layer's attention are trained.

    Stronger than prompt tuning at the same length. It cannot be merged.
    """

    prefix_projection: bool = False
    """Train the prefix through a small network, as the paper does. Default: false. Example: true"""
    encoder_hidden_size: Annotated[int, Field(ge=1, le=65536)] | None = None
    """Width of that network. Default: the model's hidden size. Example: 512"""


class PromptEncoder(StrEnum):
    MLP = "MLP"
    LSTM = "LSTM"


class PTuning(Prompt):
    """P-tuning (Liu et al. 2021, arXiv 2103.10385): a prompt in front of every row that a small network makes, which is what is trained.

    Steadier than prompt tuning at the start, with more to train; what is published is the prompt that the network ends with.
    """

    encoder_type: Annotated[PromptEncoder, Field(strict=False)] = PromptEncoder.MLP
    """The network: MLP or LSTM. Default: MLP. Example: LSTM"""
    encoder_hidden_size: Annotated[int, Field(ge=1, le=65536)] | None = None
    """Width of the network. Default: the model's hidden size. Example: 512"""
    encoder_num_layers: Annotated[int, Field(ge=1, le=16)] = 2
    """Layers of an LSTM. Default: 2. Example: 2"""
    encoder_dropout: Probability = 0.0
    """Dropout in an LSTM. Default: 0. Example: 0.1"""
