"""The test images: what makes one be built anew, and what a node is handed that holds older layers."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from tests.cluster.images.recipes import RECIPES, ROOT, keys
from tests.cluster.images.store import write_archive


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Every file that goes into an image, and a module in every package."""
    for recipe in RECIPES.values():
        for source in (recipe.dockerfile, *recipe.sources):
            path = tmp_path / source
            file = path / "module.py" if "finetune_" in path.name else path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(source)
    return tmp_path


@pytest.mark.parametrize(
    ("changed", "rebuilt"),
    [
        ("operator/finetune_operator/module.py", {"operator"}),
        ("operator/finetune_operator/policies/new.py", {"operator"}),
        ("operator/finetune_cli/module.py", {"trainer"}),
        ("trainer_image/finetune_trainer/module.py", {"trainer"}),
        ("trainer_image/finetune_trainer/__pycache__/module.pyc", set()),
        ("operator/finetune_api/module.py", {"operator", "trainer"}),
        ("requirements-trainer.lock", {"trainer"}),
        ("pyproject.toml", {"operator", "trainer"}),
        ("tests/cluster/images/torch.Dockerfile", {"torch", "trainer"}),
        ("tests/cluster/images/debian.Dockerfile", {"debian", "torch", "operator", "trainer"}),
        ("tests/unit/test_images.py", set()),
    ],
)
def test_a_change_rebuilds_what_it_goes_into(checkout: Path, changed: str, rebuilt: set[str]) -> None:
    before = keys(checkout)
    path = checkout / changed
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("something else")
    assert {name for name, key in keys(checkout).items() if key != before[name]} == rebuilt


@pytest.mark.parametrize("dockerfile", ["operator/Dockerfile", "trainer_image/Dockerfile", "trainer_image/cuda.Dockerfile"])
def test_no_image_has_a_base_by_default(dockerfile: str) -> None:
    """A tag would be another image tomorrow: whoever builds for others names one by its digest."""
    lines = (ROOT / dockerfile).read_text().splitlines()
    assert "ARG BASE" in lines
    assert {line for line in lines if line.startswith("FROM")} <= {"FROM ${BASE}", "FROM ${BASE} AS package"}


def exported(folder: Path, *layers: bytes) -> tuple[Path, list[str]]:
    """An image as buildah writes it into a folder, and the digests of its layers."""
    folder.mkdir()
    digests = []
    for content in (b"{}", *layers):
        digests.append(hashlib.sha256(content).hexdigest())
        (folder / digests[-1]).write_bytes(content)
    parts = [{"digest": f"sha256:{digest}", "size": 1} for digest in digests]
    manifest = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "config": parts[0], "layers": parts[1:]}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder, [f"sha256:{digest}" for digest in digests[1:]]


def test_an_archive_leaves_out_the_layers_that_are_held_and_holds_the_others_once(tmp_path: Path) -> None:
    one, (base, shared, own) = exported(tmp_path / "one", b"base", b"shared", b"one's own")
    two, (_, _, other) = exported(tmp_path / "two", b"base", b"shared", b"two's own")
    archive = io.BytesIO()
    write_archive({"test/one@sha256:1": one, "test/two@sha256:2": two}, {base}, archive)
    archive.seek(0)
    with tarfile.open(fileobj=archive) as written:
        names = written.getnames()
        index = json.loads(written.extractfile("index.json").read())  # type: ignore[union-attr]
    blobs = [f"sha256:{name.removeprefix('blobs/sha256/')}" for name in names if name.startswith("blobs/")]
    assert {shared, own, other} <= set(blobs)
    assert base not in blobs
    assert len(blobs) == len(set(blobs)) == 3 + 1 + 2  # the layers, one configuration, two manifests
    assert [entry["annotations"]["io.containerd.image.name"] for entry in index["manifests"]] == ["test/one@sha256:1", "test/two@sha256:2"]
