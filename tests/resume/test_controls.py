"""A checkpoint without any one part of its state makes the comparison fail; with all of them, a resume from any step passes it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from finetune_api.wire import TrainerConfig
from finetune_trainer.checkpoint import manifest
from finetune_trainer.checkpoint.files import record
from tests.resume.runs import Prepared, differing, digests, forked, log_of, prepare

DROPOUT = "causal language modelling, LoRA: a share of it merged, then EVA"
EARLY_STOPPING = "supervised, full: early stopping, the best weights"
STEPS = {DROPOUT: 4, EARLY_STOPPING: 24}
"""Where the run goes on from, in its last stage: a third of it; and where one evaluation without improvement was seen, of two that end the stage."""


def random_numbers(folder: Path) -> None:
    """Generators as a new process has them."""
    tensors = load_file(folder / "rng.safetensors")
    save_file({**tensors, "torch": torch.Generator().manual_seed(11).get_state()}, folder / "rng.safetensors")


def sampler(folder: Path) -> None:
    """The data begins anew."""
    edit(folder, lambda progress: progress["extra"]["sampler"].update(consumed=0))


def optimizer(folder: Path) -> None:
    """Moments of zero."""
    tensors = load_file(folder / "optimizer.safetensors")
    save_file({name: torch.zeros_like(tensor) for name, tensor in tensors.items()}, folder / "optimizer.safetensors")


def scheduler(folder: Path) -> None:
    """The schedule begins anew."""
    edit(folder, lambda progress: progress["schedule"].update(last_epoch=0, _step_count=1))


def callbacks(folder: Path) -> None:
    """Early stopping has seen nothing."""
    edit(folder, lambda progress: progress["extra"]["callbacks"]["verdict"].update(best=None, best_step=None, stale=0))


def nothing(folder: Path) -> None:
    """The checkpoint as it was."""


def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder / "progress.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


CONTROLS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "nothing is missing, dropout": (DROPOUT, nothing),
    "nothing is missing, early stopping": (EARLY_STOPPING, nothing),
    "random number generators": (DROPOUT, random_numbers),
    "position in the data": (DROPOUT, sampler),
    "optimizer": (DROPOUT, optimizer),
    "learning-rate schedule": (DROPOUT, scheduler),
    "early stopping": (EARLY_STOPPING, callbacks),
}


@pytest.fixture(scope="module")
def undisturbed(resume_demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Prepared, TrainerConfig]]:
    """A finished run of a configuration that has kept all its checkpoints."""
    made: dict[str, tuple[Prepared, TrainerConfig]] = {}

    def make(name: str) -> tuple[Prepared, TrainerConfig]:
        if name not in made:
            prepared = prepare(name, resume_demo, tmp_path_factory.mktemp("controls"), keep=1000)
            config = prepared.fresh("undisturbed")
            assert forked(config).end().code == 0, log_of(Path(config.run_folder))
            made[name] = prepared, config
        return made[name]

    return make


@pytest.mark.parametrize("control", CONTROLS)
def test_each_part_of_the_state_is_needed(
    undisturbed: Callable[[str], tuple[Prepared, TrainerConfig]], control: str, tmp_path: Path
) -> None:
    name, drop = CONTROLS[control]
    prepared, original = undisturbed(name)
    folder = tmp_path / "run"
    config = prepared.config.model_copy(update={"run_folder": str(folder)})
    shutil.copytree(original.run_folder, folder, symlinks=True)
    checkpoint = rewound(folder, STEPS[name])
    drop(checkpoint)
    sealed(checkpoint)
    assert forked(config).end().code == 0, log_of(folder)
    found = differing(digests(original), digests(config))
    if drop is nothing:
        assert found == []
    else:
        assert any("checkpoint weights" in key for key in found), f"the comparison did not notice; it saw {found}"


def rewound(folder: Path, step: int) -> Path:
    """Take a finished run back to a step of its last stage; returns the checkpoint there."""
    stage = max((folder / "epochs/0001/stages").iterdir())
    for path in stage.iterdir():
        if path.is_dir() and path.name > f"checkpoint-{step:08d}":
            shutil.rmtree(path)
    for path in [folder / "evaluation", folder / "artifacts"]:
        shutil.rmtree(path, ignore_errors=True)
    checkpoint = stage / f"checkpoint-{step:08d}"
    assert checkpoint.is_dir(), sorted(path.name for path in stage.iterdir())
    return checkpoint


def sealed(folder: Path) -> None:
    """Write the manifest that belongs to the files as they are now."""
    known = manifest.read(folder)
    written = replace(known, files={name: record(folder / name) for name in known.files})
    (folder / manifest.MANIFEST).write_bytes(written.render())
