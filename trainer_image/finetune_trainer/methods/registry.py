"""The methods by name: each is METHOD in the module of this package that is called as it is, and imported when it is first used."""

from __future__ import annotations

from importlib import import_module

from finetune_api.v1alpha1.method import MethodType
from finetune_trainer.methods.base import Method


def method_of(kind: MethodType) -> Method:
    """The code of a method."""
    found: Method = import_module(f"finetune_trainer.methods.{kind.attribute}").METHOD
    return found
