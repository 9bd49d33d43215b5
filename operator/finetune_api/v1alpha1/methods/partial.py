"""Training chosen parameters."""

from typing import Annotated

from pydantic import Field

from finetune_api.v1alpha1.methods.common import Modules, Options
from finetune_api.v1alpha1.types import Share


class Partial(Options):
    """Choose parameters by patterns of their names (shell globs, `*` matches dots too), by depth, or by share. Write one of the four.

    For a few layers, the norms alone, or everything but the embeddings: less memory than `full`, and a plain model all the same. By depth and by
    share it is whole layers from the top, with what stands above them: the last norm, and the head where it has weights of its own (one that is
    tied to the embeddings stays frozen with them). What is trained is told when the stage begins, and in the report.
    """

    trained: Modules | None = None
    """Only parameters whose name matches one of these are trained. Example: ["model.layers.2?.*", "lm_head.*"]"""
    frozen: Modules | None = None
    """All parameters but those that match one of these are trained. Example: ["model.embed_tokens.*"]"""
    last_layers: Annotated[int, Field(ge=1, le=4096)] | None = None
    """So many layers from the top, and what stands above them. Example: 4"""
    share: Share | None = None
    """As many layers from the top as make up at most this share of all parameters, with what stands above them. Example: 0.25"""
