"""How full and how busy the GPU is that trains: as torch's allocator counts its memory, and the driver the time in which a kernel ran.

It is read by the threads that tell progress, each time that they tell it, and never by the training thread. What torch does not see is not
told: no GPU, one that nothing has used yet, a part of one (MIG) for which the driver has no utilisation. Nothing here makes torch begin to
use a GPU, or imports it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final

from finetune_api.wire import LARGEST_COUNT

_DRIVERS: Final = (("pynvml", "NVMLError"), ("amdsmi", "AmdSmiException"))
"""What torch asks, and the error from which all of its errors derive."""


def seen_by_torch() -> Any:
    """`torch.cuda` where a GPU is in use, None else; also while torch is being imported."""
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    begun = getattr(cuda, "is_initialized", None)
    return cuda if begun is not None and begun() else None


def gpu_figures(see: Callable[[], Any] = seen_by_torch) -> dict[str, int]:
    """Fields of a ProgressUpdate: bytes of memory, percent of the time. Of the GPU that trains, torch's first (`training_device`)."""
    cuda = see()
    if cuda is None:
        return {}
    ask: dict[str, Callable[[], Any]] = {
        "gpu_memory_bytes": lambda: cuda.memory_allocated(0),
        "gpu_memory_peak_bytes": lambda: cuda.max_memory_reserved(0),
        "gpu_memory_total_bytes": lambda: cuda.get_device_properties(0).total_memory,
        "gpu_utilization_percent": lambda: cuda.utilization(0),
    }
    read = {name: _asked(question) for name, question in ask.items()}
    bounds = dict.fromkeys(ask, LARGEST_COUNT) | {"gpu_utilization_percent": 100}
    return {name: value for name, value in read.items() if value is not None and 0 <= value <= bounds[name]}


def _asked(question: Callable[[], Any]) -> int | None:
    """The answer, None where there is none: the driver's library is not mounted, or does not know."""
    errors = [getattr(sys.modules[module], name) for module, name in _DRIVERS if module in sys.modules]
    try:
        return int(question())
    except (ImportError, OSError, RuntimeError, ValueError, TypeError, AttributeError, *errors):
        return None
