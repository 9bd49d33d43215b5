"""The state of every random number generator that training draws from: Python's, numpy's, torch's on the CPU and on each GPU."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from finetune_trainer.checkpoint.snapshot import Snapshot

FILE = "rng"


def capture_random() -> Snapshot:
    """The generators as they are: states that are bytes as tensors, the rest as JSON."""
    version, words, gauss = random.getstate()
    kind, keys, index, has_gauss, cached = np.random.get_state(legacy=True)
    tensors = {
        "python": torch.tensor(words, dtype=torch.int64),
        "numpy": torch.from_numpy(np.asarray(keys).astype(np.int64)),
        "torch": torch.random.get_rng_state().clone(),
    }
    if torch.cuda.is_available():
        tensors |= {f"cuda.{device}": state.cpu() for device, state in enumerate(torch.cuda.get_rng_state_all())}
    document = {
        "python": {"version": version, "gauss": gauss},
        "numpy": {"kind": kind, "index": int(index), "hasGauss": int(has_gauss), "cached": float(cached)},
    }
    return Snapshot({FILE: tensors}, {FILE: document})


def restore_random(tensors: dict[str, torch.Tensor], document: dict[str, Any]) -> None:
    """Put the generators back. GPUs that were not there then keep their state."""
    python, numpy = document["python"], document["numpy"]
    random.setstate((python["version"], tuple(tensors["python"].tolist()), python["gauss"]))
    keys = tensors["numpy"].numpy().astype(np.uint32)
    np.random.set_state((numpy["kind"], keys, numpy["index"], numpy["hasGauss"], numpy["cached"]))
    torch.random.set_rng_state(tensors["torch"])
    for device in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        if (state := tensors.get(f"cuda.{device}")) is not None:
            torch.cuda.set_rng_state(state, device)


@contextmanager
def preserved_random() -> Iterator[None]:
    """Whatever is drawn inside, the generators go on outside as if nothing had been.

    For evaluations: one that is repeated after a stop must leave the training where one that ran once does.
    """
    before = capture_random()
    try:
        yield
    finally:
        restore_random(dict(before.tensors[FILE]), before.documents[FILE])
