"""The folder that a model is published to: whole or not there, and nothing beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune_trainer.checkpoint.files import FileLayer
from finetune_trainer.export.place import new_folder


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    left = tmp_path / ".writing-adapter-4711"
    left.mkdir()
    (left / "adapter_model.safetensors").write_bytes(b"half")
    with new_folder(tmp_path / "adapter", FileLayer()) as folder:
        (folder / "adapter_model.safetensors").write_bytes(b"whole")
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]
    assert (tmp_path / "adapter/adapter_model.safetensors").read_bytes() == b"whole"


def test_a_folder_that_was_there_stays_where_the_new_one_fails(tmp_path: Path) -> None:
    (tmp_path / "merged").mkdir()
    (tmp_path / "merged/model.safetensors").write_bytes(b"old")
    with pytest.raises(RuntimeError), new_folder(tmp_path / "merged", FileLayer()):
        raise RuntimeError("verification failed")
    assert [path.name for path in tmp_path.iterdir()] == ["merged"]
    assert (tmp_path / "merged/model.safetensors").read_bytes() == b"old"
