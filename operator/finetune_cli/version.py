"""`finetune version`: what is installed, without importing it."""

from __future__ import annotations

import platform
from importlib import metadata

PACKAGES = ("finetune-operator", "pydantic", "torch", "transformers", "peft", "accelerate", "tokenizers", "safetensors")


def versions() -> dict[str, str]:
    """Versions by name; a package that is missing says so (the trainer's need not be there to validate)."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return {**found, "python": platform.python_version(), "platform": platform.platform(terse=True)}
