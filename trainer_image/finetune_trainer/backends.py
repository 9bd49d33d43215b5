"""The packages that keep a base in few bits: which a job needs, and what is said where one is missing. Imports neither them nor torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib.machinery import PathFinder
from typing import Any, Final

from finetune_api.constants import Reason
from finetune_api.v1alpha1.methods.qlora import Qlora, Quantization
from finetune_api.v1alpha1.stage import Stage
from finetune_trainer.errors import TrainerError

PACKAGES: Final = {Quantization.NF4: "bitsandbytes", Quantization.INT8: "bitsandbytes", Quantization.TORCHAO_INT8: "torchao"}


def quantization_of(stage: Stage) -> Quantization | None:
    """What a stage's base is kept in; None where it is left as it is."""
    if not stage.method.row.quantizations:
        return None
    return (stage.method.qlora or Qlora()).quantization


def needed(stages: Iterable[Stage]) -> set[str]:
    """The packages that these stages use."""
    return {PACKAGES[kind] for stage in stages if (kind := quantization_of(stage)) is not None}


def check_installed(stage: Stage, where: str, find: Callable[[str], Any] = PathFinder.find_spec) -> None:
    """Raise TrainerError(InvalidSpec) where the stage's package is not here. where: `spec.stages[0]`.

    find: looks at what is installed, and not at sys.modules, where those that this job does not use look missing (`lean.py`).
    """
    kind = quantization_of(stage)
    if kind is None or find(PACKAGES[kind]) is not None:
        return
    found = {other for other, package in PACKAGES.items() if find(package) is not None and other is not kind}
    others = f", or choose {' or '.join(sorted(found))}, which this one can do" if found else ""
    wanted = (
        "needs torch 2.11 or later, and images on an older one are built without it" if kind is Quantization.TORCHAO_INT8 else "is missing"
    )
    raise TrainerError(
        Reason.INVALID_SPEC,
        f"{kind} is done by {PACKAGES[kind]}, which {wanted}: it is not installed in this image",
        where=f"{where}.method.qlora.quantization",
        hint=f"Use a trainer image that has {PACKAGES[kind]} (requirements-trainer.lock does){others}.",
    )
