"""Starting without what is never used.

transformers imports `datasets` (and pandas with it) and scikit-learn wherever they are installed, for features that the trainer does not have:
a quarter of the CPU time of a start. It asks once whether they are there, so it is answered no while it is imported, and never asks again.

And what an import makes stays: the garbage collector, which walks over all of it again and again, would take a seventh of that time.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Final

UNUSED: Final = ("datasets", "sklearn")
QUANTISING: Final = ("bitsandbytes", "torchao")
"""What PEFT and transformers import for a base in few bits, which most jobs don't have. PEFT asks for them again with each adapter."""


@contextmanager
def lean_imports(used: Iterable[str] = ()) -> Iterator[None]:
    """While it is open, packages that are not imported yet and never used look as if they were not installed, and no garbage is collected.
    What is there when it closes is never walked over by the collector again. used: of the packages that quantise, those that this job needs; the others look missing as long as the process lives."""
    collecting = gc.isenabled()
    gc.disable()
    hidden = [name for name in UNUSED if name not in sys.modules and find_spec(name)]
    for name in [*hidden, *(name for name in QUANTISING if name not in {*used, *sys.modules})]:
        sys.modules[name] = None  # type: ignore[assignment] # how importlib is told that a name can't be imported
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
        gc.freeze()
        if collecting:
            gc.enable()
