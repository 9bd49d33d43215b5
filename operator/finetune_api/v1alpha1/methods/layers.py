"""Methods that treat layers by their depth, and the bottleneck adapter that stands between them."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from finetune_api.v1alpha1.methods.common import Options, Probability


class Full(Options):
    """Every weight is trained. It learns most, needs memory for the weights four times over (AdamW), and forgets most: watch a knowledge suite.

    `layerDecay` makes deeper layers learn slower (discriminative rates, Howard and Ruder 2018, arXiv 1801.06146): it forgets less.
    """

    layer_decay: Annotated[float, Field(gt=0, le=1)] | None = None
    """Factor of the learning rate from each layer to the one below it; the head has the whole rate, the embeddings the least. Default: 1. Example: 0.9"""


class GradualDirection(StrEnum):
    UNFREEZING = "unfreezing"
    FREEZING = "freezing"


class Gradual(Options):
    """Full tuning in which layers join from the top down (gradual unfreezing, Howard and Ruder 2018, arXiv 1801.06146), or leave from the bottom up.

    Unfreezing protects what lower layers know until the head has settled; freezing saves work once they have. The schedule counts optimizer
    steps, or shares of an epoch, and is exact over a resume. Unfreezing begins with the head and the topmost layer; the embeddings come last.
    Freezing begins with everything and freezes the embeddings first; the topmost layer and the head are never frozen.
    """

    direction: Annotated[GradualDirection, Field(strict=False)] = GradualDirection.UNFREEZING
    """unfreezing (from the top down) or freezing (from the bottom up). Default: unfreezing. Example: freezing"""
    every_steps: Annotated[int, Field(ge=1, le=100_000_000)] | None = None
    """Steps between two changes. Write one of everySteps and everyEpochs. Example: 100"""
    every_epochs: Annotated[float, Field(gt=0, le=10000)] | None = None
    """Epochs between two changes. Write one of everySteps and everyEpochs. Example: 0.5"""
    layers: Annotated[int, Field(ge=1, le=4096)] = 1
    """Layers that join or leave at a change. Default: 1. Example: 4"""


class AdapterPlace(StrEnum):
    HOULSBY = "houlsby"
    PFEIFFER = "pfeiffer"
    PARALLEL = "parallel"


class AdapterActivation(StrEnum):
    RELU = "relu"
    GELU = "gelu"
    SILU = "silu"
    TANH = "tanh"


class Bottleneck(Options):
    """Bottleneck adapters: small two-layer networks in every layer, which begin as the identity.

    houlsby stands after attention and after the feed-forward layer (arXiv 1902.00751), pfeiffer after the feed-forward layer alone (arXiv
    2005.00247), parallel beside it (arXiv 2110.04366). No library that works with this version of transformers has them: a folder in PEFT's
    form is published, with the ten lines that put it on its base. It cannot be merged, because it is not linear.
    """

    place: Annotated[AdapterPlace, Field(strict=False)] = AdapterPlace.PFEIFFER
    """houlsby (after attention and feed-forward), pfeiffer (after feed-forward), or parallel (beside feed-forward). Default: pfeiffer. Example: houlsby"""
    size: Annotated[int, Field(ge=1, le=65536)] = 64
    """Width of the bottleneck. Default: 64. Example: 64"""
    activation: Annotated[AdapterActivation, Field(strict=False)] = AdapterActivation.RELU
    """relu, gelu, silu or tanh. Default: relu. Example: gelu"""
    dropout: Probability = 0.0
    """Dropout in the bottleneck. Default: 0. Example: 0.1"""
    scale: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """By which its output is multiplied. Default: 1. Example: 4"""
