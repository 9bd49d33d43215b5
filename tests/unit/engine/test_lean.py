"""A start leaves out what is never used, and what it leaves out can be imported afterwards."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import gc, sys
from finetune_trainer.lean import QUANTISING, UNUSED, lean_imports
with lean_imports():
    import finetune_trainer.recipe
assert gc.isenabled() and gc.get_freeze_count() > 100_000, gc.get_freeze_count()
assert not set(UNUSED) & set(sys.modules), sorted(set(UNUSED) & set(sys.modules))
from transformers.utils import is_datasets_available
assert not is_datasets_available()
from peft import LoraConfig, get_peft_model
from torch import nn
get_peft_model(nn.Sequential(nn.Linear(4, 4)), LoraConfig(r=1, target_modules=["0"]))
assert not [name for name in QUANTISING if sys.modules.get(name)], "nor does an adapter import what quantises"
print(all(name not in sys.modules for name in UNUSED))
"""


def test_the_trainer_starts_without_datasets_and_pandas() -> None:
    found = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False, timeout=300)
    assert (found.returncode, found.stdout.strip()) == (0, "True"), found.stderr
