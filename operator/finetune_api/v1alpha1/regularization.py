"""Guards: what of the model is kept while a stage trains the rest. Several may stand together, each once."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from finetune_api.base import ApiModel


class GuardType(StrEnum):
    L2SP = "l2sp"
    EWC = "ewc"
    KL = "kl"
    DANN = "dann"
    MIXOUT = "mixout"
    LOSS_SPIKE = "lossSpike"


class Anchor(StrEnum):
    BASE = "base"
    STAGE_START = "stageStart"


class SpikeAction(StrEnum):
    SKIP = "skip"
    LOWER = "lower"


class Guard(ApiModel):
    type: Annotated[GuardType, Field(strict=False)]
    """l2sp (weights are pulled back to the anchor; arXiv 1802.01483), ewc (the more, the more they matter for the stage's replay data; arXiv 1612.00796), kl (predictions stay near the anchor's; arXiv 1606.09282), dann (features don't tell the row's domain; arXiv 1505.07818), mixout (weights are at random the anchor's; arXiv 1909.11299), or lossSpike (a step with a sudden loss is left out or made smaller; arXiv 2204.02311). Example: l2sp"""
    strength: Annotated[float, Field(gt=0, le=1e6)] | None = None
    """l2sp, ewc, kl, dann: how much it weighs beside the task's loss. l2sp adds strength / 2 times the squared distance from the anchor, ewc the same with each weight's square times its Fisher information, kl strength times the divergence from it in nats; dann multiplies the reversed gradient by it. Required there. Example: 0.01"""
    anchor: Annotated[Anchor, Field(strict=False)] | None = None
    """l2sp, ewc, kl, mixout: what is kept. base (spec.model as it is) or stageStart (what the stage starts from; in the first stage the same). Default: base. Example: base"""
    samples: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """ewc: of how many rows of the replay sources the Fisher information is. Default: 256. Example: 256"""
    probability: Annotated[float, Field(gt=0, lt=1)] | None = None
    """mixout: how probable it is that a weight is the anchor's in a batch. Required there. Example: 0.1"""
    action: Annotated[SpikeAction, Field(strict=False)] | None = None
    """lossSpike: skip (the step is left out) or lower (it and the next ones are made at a lower learning rate). Required there. Example: skip"""
    window: Annotated[int, Field(ge=10, le=10_000)] | None = None
    """lossSpike: how many of the last losses a loss is compared with. Default: 50. Example: 100"""
    deviations: Annotated[float, Field(gt=0, le=1e6)] | None = None
    """lossSpike: a loss so many robust standard deviations above the median is a spike. Default: 6. Example: 6"""
    factor: Annotated[float, Field(gt=0, lt=1)] | None = None
    """lossSpike: the share of the learning rate that action lower leaves. Default: 0.1. Example: 0.1"""
    steps: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """lossSpike: for how many steps after a spike action lower holds. Default: 10. Example: 20"""


def guard_text(guard: Guard) -> str:
    """A guard in a few words. Example: l2sp (strength 0.01, anchor base)"""
    options = guard.model_dump(mode="json", exclude_none=True)
    kind = str(options.pop("type"))
    return f"{kind} ({', '.join(f'{name} {value}' for name, value in options.items())})"
