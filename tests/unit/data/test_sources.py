"""Files by URI: relative paths, folders, globs, claims; and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finetune_api.constants import Reason
from finetune_api.v1alpha1.data import DataFormat
from finetune_trainer.data.sources import Located, locate
from finetune_trainer.errors import TrainerError

TREE = [
    "data/b.jsonl",
    "data/a.jsonl",
    "data/sub/c.jsonl",
    "data/.hidden.jsonl",
    "data/_SUCCESS",
    "data/notes.dat",
    "mixed/a.csv",
    "mixed/a.txt",
]


@pytest.fixture
def tree(job: Any) -> Any:
    for name in TREE:
        job.file(name, "x")
    job.file("claim/in/d.jsonl", "x")
    job.mounts["data"] = str(job.folder / "claim")
    return job


def find(job: Any, uri: str, **options: Any) -> Located:
    return locate(uri, config=job.config("file://data"), where="spec.x", **options)


@pytest.mark.parametrize(
    ("uri", "names"),
    [
        ("file://data/a.jsonl", ["data/a.jsonl"]),
        ("file://./data/a.jsonl", ["data/a.jsonl"]),
        ("file://data", ["data/a.jsonl", "data/b.jsonl", "data/sub/c.jsonl"]),
        ("file://data/*.jsonl", ["data/.hidden.jsonl", "data/a.jsonl", "data/b.jsonl"]),
        ("file://data/**/[bc].jsonl", ["data/b.jsonl", "data/sub/c.jsonl"]),
        ("pvc://data/in/d.jsonl", ["pvc://data/in/d.jsonl"]),
        ("pvc://data", ["pvc://data/in/d.jsonl"]),
    ],
)
def test_files(tree: Any, uri: str, names: list[str]) -> None:
    located = find(tree, uri)
    assert list(located.names) == names
    assert located.format is DataFormat.JSONL
    assert all(file.is_file() for file in located.files)


def test_an_absolute_path_and_a_name_with_brackets(tree: Any) -> None:
    tree.file("data/[1].jsonl", "x")
    assert find(tree, f"file://{tree.folder}/data/[1].jsonl").names == ("data/[1].jsonl",)


def test_a_format_that_is_said(tree: Any) -> None:
    assert find(tree, "file://mixed", format=DataFormat.CSV).names == ("mixed/a.csv",)
    assert find(tree, "file://data/notes.dat", format=DataFormat.TEXT).format is DataFormat.TEXT


@pytest.mark.parametrize(
    ("uri", "reason", "says"),
    [
        ("file://no.jsonl", Reason.SOURCE_NOT_FOUND, "spec.x: there is no file or folder"),
        ("file://data/*.csv", Reason.DATA_EMPTY, "file://data/*.csv has no data: the glob matches no file"),
        ("file://no/*.csv", Reason.DATA_EMPTY, "the glob matches no file"),
        ("file://mixed", Reason.DATA_INVALID, "file://mixed has files of more than one format (csv, text); name one in `format`"),
        ("pvc://data/../data", Reason.INVALID_SPEC, "pvc://data/../data leaves the claim with '..'"),
        ("pvc://other/x", Reason.SOURCE_NOT_FOUND, "no folder is mounted under the name 'other' of pvc://other/x (mounted are data); locally: finetune run --mount other=DIR"),
        ("hf://OWNER/NAME", Reason.INVALID_SPEC, "hf://OWNER/NAME is a model's URI; data lies under hf://datasets/OWNER/NAME/path"),
        ("hf://datasets/OWNER", Reason.INVALID_SPEC, "hf://datasets/OWNER is incomplete: write hf://OWNER/NAME or hf://datasets/OWNER/NAME/path"),
        ("hf://datasets/OWNER/NAME/../x", Reason.INVALID_SPEC, "leaves the repository with '..'"),
    ],
)  # fmt: skip
def test_sources_that_are_refused(tree: Any, uri: str, reason: Reason, says: str) -> None:
    with pytest.raises(TrainerError) as caught:
        find(tree, uri)
    assert says in str(caught.value)
    assert caught.value.reason is reason


def test_a_folder_without_matches(tree: Any) -> None:
    with pytest.raises(
        TrainerError, match=r"file://data has no data: the folder has 4 file\(s\), none of which ends in \.parquet"
    ) as caught:
        find(tree, "file://data", format=DataFormat.PARQUET)
    assert caught.value.reason is Reason.DATA_EMPTY


def test_an_empty_folder(tree: Any) -> None:
    (tree.folder / "empty").mkdir()
    with pytest.raises(TrainerError, match=r"file://empty has no data: the folder has no file that ends in \.jsonl, \.ndjson, \.csv,"):
        find(tree, "file://empty")


def test_a_link_that_leaves_the_claim(tree: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside") / "secret.jsonl"
    outside.write_text("x")
    (tree.folder / "claim/link.jsonl").symlink_to(outside)
    with pytest.raises(TrainerError, match="is a link that leaves the claim"):
        find(tree, "pvc://data/link.jsonl")


@pytest.mark.parametrize("secret", [None, "missing-file"])
def test_credentials_without_a_token(tree: Any, secret: str | None) -> None:
    if secret:
        tree.secret_files["hf"] = str(Path(tree.folder) / secret)
    with pytest.raises(TrainerError, match="credentials 'hf'") as caught:
        find(tree, "hf://datasets/OWNER/NAME/x.jsonl", credentials="hf")
    assert caught.value.reason is Reason.SOURCE_FORBIDDEN
