"""Model folders that are taken, and those that are refused: each with its message."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finetune_api.constants import Reason
from finetune_trainer.data.models import check_folder, length_limits, locate_model
from finetune_trainer.errors import TrainerError


def without(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def rename(name: str, new: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).rename(folder / new)


def edit(name: str, **changes: Any) -> Callable[[Path], object]:
    def apply(folder: Path) -> None:
        path = folder / name
        document = {**json.loads(path.read_text()), **changes}
        path.write_text(json.dumps({key: value for key, value in document.items() if value is not None}))

    return apply


def cut(length: int) -> Callable[[Path], object]:
    """Keep so many bytes of the weights."""
    return lambda folder: (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:length])


def shards(*names: str) -> Callable[[Path], object]:
    weights = {f"tensor.{number}": name for number, name in enumerate(names)}
    return lambda folder: (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weights}))


def two_ggufs(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "a.gguf").touch()
    (folder / "b.gguf").touch()


@pytest.fixture
def folder(tiny_llama: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_llama, tmp_path / "model"))


@pytest.mark.parametrize(
    ("change", "reason", "says"),
    [
        (without("model.safetensors"), Reason.MODEL_UNSUPPORTED, "model has no weights: there is no .safetensors and no .gguf file"),
        (rename("model.safetensors", "pytorch_model.bin"), Reason.MODEL_UNSAFE, "has its weights as pickle only (pytorch_model.bin), which can run code when it is loaded; convert them to safetensors"),
        (edit("config.json", auto_map={"AutoModel": "x.Y"}), Reason.MODEL_UNSAFE, "config.json asks for code of its own (auto_map: AutoModel), which is never run"),
        (edit("tokenizer_config.json", auto_map={"AutoTokenizer": "x.Y"}), Reason.MODEL_UNSAFE, "tokenizer_config.json asks for code of its own (auto_map: AutoTokenizer)"),
        (without("tokenizer.json"), Reason.MODEL_UNSUPPORTED, "has no tokenizer: none of tokenizer.json,"),
        (without("config.json"), Reason.MODEL_UNSUPPORTED, "has no config.json: it is not a model's folder as transformers writes it"),
        (edit("config.json", model_type=None), Reason.MODEL_UNSUPPORTED, "names no model_type"),
        (two_ggufs, Reason.MODEL_UNSUPPORTED, "has 2 .gguf files: name one, such as"),
        (cut(-1), Reason.MODEL_UNSUPPORTED, "it is cut off or damaged"),
        (cut(100), Reason.MODEL_UNSUPPORTED, "model.safetensors has no header that can be read: it is cut off or damaged"),
        (cut(0), Reason.MODEL_UNSUPPORTED, "model.safetensors has no header that can be read"),
        (shards("model.safetensors", "second.safetensors"), Reason.MODEL_UNSUPPORTED, "lacks second.safetensors, which model.safetensors.index.json names"),
    ],
)  # fmt: skip
def test_folders_that_are_refused(folder: Path, change: Callable[[Path], object], reason: Reason, says: str) -> None:
    change(folder)
    with pytest.raises(TrainerError) as caught:
        check_folder(folder)
    assert str(caught.value).startswith("spec.model.uri: ")
    assert says in str(caught.value)
    assert caught.value.reason is reason


def test_a_whole_folder_and_a_gguf(folder: Path) -> None:
    assert check_folder(folder) == folder
    (folder / "model.safetensors").unlink()
    (folder / "a.gguf").touch()
    assert check_folder(folder) == folder / "a.gguf" == check_folder(folder / "a.gguf")


def test_limits(folder: Path) -> None:
    edit("tokenizer_config.json", model_max_length=128)(folder)
    assert length_limits(folder) == (512, 128)
    edit("config.json", max_position_embeddings=None)(folder)
    edit("tokenizer_config.json", model_max_length=10**30)(folder)
    assert length_limits(folder) == (None, None)


@pytest.mark.parametrize(
    ("uri", "reason", "says"),
    [
        ("file://no-such-folder", Reason.SOURCE_NOT_FOUND, "there is no folder"),
        ("file://a.bin", Reason.MODEL_UNSUPPORTED, "is a file; name the model's folder, or a .gguf file"),
        ("pvc://models/x", Reason.SOURCE_NOT_FOUND, "no folder is mounted under the name 'models'"),
    ],
)
def test_uris_that_are_refused(job: Any, uri: str, reason: Reason, says: str) -> None:
    job.file("a.bin", "x")
    with pytest.raises(TrainerError) as caught:
        locate_model(job.config("file://x", model={"uri": uri}))
    assert says in str(caught.value)
    assert caught.value.reason is reason


@pytest.mark.parametrize("link", ["model", "model/chat_template.jinja", "model/additional_chat_templates/a.jinja"])
def test_links_of_a_claim(job: Any, folder: Path, link: str) -> None:
    """What they lead to inside of the claim is read, as in the hub's cache; what is outside is not."""
    job.mounts["models"] = str(job.folder / "claim")
    claim, outside = job.folder / "claim", job.folder / "outside"
    shutil.copytree(folder, outside)
    shutil.copytree(folder, claim / "blobs")
    at = claim / link
    if link != "model":
        shutil.copytree(folder, claim / "model")
        at.parent.mkdir(exist_ok=True)
    config = job.config("file://x", model={"uri": "pvc://models/model"})
    at.symlink_to(claim / "blobs" if link == "model" else claim / "blobs/config.json")
    assert locate_model(config).path.is_dir()
    at.unlink()
    at.symlink_to(outside if link == "model" else outside / "config.json")
    with pytest.raises(TrainerError, match="is a link that leaves the claim") as caught:
        locate_model(config)
    assert caught.value.reason is Reason.INVALID_SPEC


def test_a_broken_gguf_file(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(b"GGUF" + bytes(64))
    with pytest.raises(TrainerError, match="is not a whole GGUF file"):
        length_limits(path)
