"""What a trainer's log leaves out: what packages that quantise say of themselves, and nothing else of theirs."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import logging
from finetune_trainer.logs import ProcessLog
ProcessLog()
import torch, bitsandbytes, torchao.quantization
from finetune_api.v1alpha1.methods.qlora import Quantization
from finetune_trainer.modeling.few_bits import in_few_bits
in_few_bits(torch.nn.Linear(64, 64, bias=False).requires_grad_(False), Quantization.INT8, double=False)(torch.ones(1, 64))
for name in ("bitsandbytes.backends.cpu.ops", "bitsandbytes.autograd._functions", "torch.utils._pytree"):
    logging.getLogger(name).warning("a warning of %s", name)
"""


def test_packages_that_quantise_say_nothing_of_themselves() -> None:
    found = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False, timeout=300)
    assert found.returncode == 0, found.stderr
    said = [line for line in found.stderr.splitlines() if "WARNING" in line or line.startswith("W")]
    assert [line.rpartition(" ")[2] for line in said] == [
        "bitsandbytes.backends.cpu.ops",
        "bitsandbytes.autograd._functions",
        "torch.utils._pytree",
    ]
