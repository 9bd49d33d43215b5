"""A subset of the Common Expression Language, enough for the rules of the API: the API server and Python read the same text."""

from finetune_api.cel.evaluate import BROKEN, Undecided, evaluate
from finetune_api.cel.syntax import CelSyntaxError, Node, parse, substitute

__all__ = ["BROKEN", "CelSyntaxError", "Node", "Undecided", "evaluate", "parse", "substitute"]
