"""Where a model comes from: the hashes of its data and its configuration, the versions that made it, the seed and the threads."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, Final

from finetune_api.v1alpha1.stage import Stage
from finetune_api.v1alpha1.status import Provenance
from finetune_api.wire import TrainerConfig
from finetune_trainer.backends import needed

PACKAGES: Final = ("torch", "transformers", "peft", "accelerate", "safetensors", "tokenizers", "finetune-operator")


def versions(stages: Sequence[Stage] = ()) -> dict[str, str]:
    """Of Python and of the packages that decide numbers, these stages' among them."""
    return {"python": platform.python_version(), **{name: version(name) for name in (*PACKAGES, *sorted(needed(stages)))}}


def complete(provenance: Provenance, config: TrainerConfig) -> Provenance:
    """What `prepare` found, with the versions of this process and the image that it runs in."""
    image = config.pod.image_digest if config.pod else None
    return provenance.model_copy(update={"versions": versions(config.spec.stages), "image_digest": image})


def document(config: TrainerConfig, provenance: Provenance, **more: Any) -> bytes:
    """provenance.json: the status's provenance, and what else a person needs to do it again."""
    body = {
        **provenance.model_dump(mode="json", exclude_none=True),
        "job": config.job.model_dump(mode="json"),
        "threads": config.threads,
        "spec": config.spec.model_dump(mode="json", exclude_none=True),
        **more,
    }
    return (json.dumps(body, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()
