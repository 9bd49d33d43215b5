"""Training chosen parameters."""

from finetune_api.v1alpha1.methods.common import Modules, Options


class Partial(Options):
    """Choose parameters by patterns of their names (shell globs, `*` matches dots too). Write one of the two lists.

    For a few layers, the norms alone, or everything but the embeddings: less memory than `full`, and a plain model all the same.
    """

    trained: Modules | None = None
    """Only parameters whose name matches one of these are trained. Example: ["model.layers.2?.*", "lm_head.*"]"""
    frozen: Modules | None = None
    """All parameters but those that match one of these are trained. Example: ["model.embed_tokens.*"]"""
