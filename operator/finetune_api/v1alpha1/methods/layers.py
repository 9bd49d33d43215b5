"""Methods that treat layers by their depth, and the bottleneck adapter that stands between them."""

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from finetune_api import constants as c
from finetune_api.base import ApiModel
from finetune_api.v1alpha1.methods.common import Modules, Options, Probability


class Weights(StrEnum):
    FP32 = "fp32"
    BF16 = "bf16"


class ParameterGroup(ApiModel):
    parameters: Modules
    """Patterns of parameter names (shell globs, `*` matches dots too). A parameter may be in one group only. Example: ["model.embed_tokens.*"]"""
    learning_rate_factor: Annotated[float, Field(gt=0, le=1000)] | None = None
    """Their learning rate as a multiple of learningRate (and of layerDecay's share of it). Default: 1. Example: 0.1"""
    weight_decay: Annotated[float, Field(ge=0, le=1)] | None = None
    """Their weight decay, not on biases and norms among them. Default: training.weightDecay. Example: 0.1"""

    def __str__(self) -> str:
        parts = [
            *([f"at {self.learning_rate_factor:g} of the rate"] if self.learning_rate_factor is not None else []),
            *([f"decayed by {self.weight_decay:g}"] if self.weight_decay is not None else []),
        ]
        return f"{' '.join(self.parameters)} {' and '.join(parts)}"


class Full(Options):
    """Every weight is trained. It learns most, needs memory for the weights four times over (AdamW), and forgets most: watch a knowledge suite.

    `layerDecay` makes deeper layers learn slower (discriminative rates, Howard and Ruder 2018, arXiv 1801.06146): it forgets less. `groups` gives
    chosen parameters rates and weight decays of their own. `weights: bf16` keeps weights, gradients and AdamW's two averages in bf16: half the
    memory. A step is made in fp32 and rounded up or down by chance, in proportion (stochastic rounding, arXiv 2010.06192), so that updates
    below half a digit of bf16 are not lost; the chances come from the seed. In fp32, the default, nothing is rounded.
    """

    weights: Annotated[Weights, Field(strict=False)] | None = None
    """fp32, or bf16 with stochastic rounding (adamw only, half the memory). Default: fp32. Example: bf16"""
    groups: Annotated[list[ParameterGroup], Field(min_length=1, max_length=c.MAX_PARAMETER_GROUPS)] | None = None
    """Parameters with a learning rate or a weight decay of their own. Default: none. Example: [{parameters: ["model.embed_tokens.*"], learningRateFactor: 0.1}]"""
    layer_decay: Annotated[float, Field(gt=0, le=1)] | None = None
    """Factor of the learning rate from each layer to the one below it; the head has the whole rate, the embeddings the least. Default: 1. Example: 0.9"""

    def words(self) -> Iterator[str]:
        """What the weights are kept in is said in any case."""
        if self.weights is None:
            yield f"weights {Weights.FP32}"
        yield from super().words()


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
