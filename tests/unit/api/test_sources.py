"""The walk over what a job names outside of itself finds every such field."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from finetune_api.sources import claim_in, credentials, uris
from finetune_api.v1alpha1.fine_tune_job import FineTuneJob
from tests.builders import edited
from tests.manifests import VALID


def named(value: object, key: str, path: str = "") -> Iterator[tuple[str, object]]:
    """Yield (path, value) of every entry of that key, wherever it is in a document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, each in inner:
        where = f"{path}[{name}]" if isinstance(value, list) else f"{path}.{name}".removeprefix(".")
        if name == key:
            yield where, each
        yield from named(each, key, where)


@pytest.mark.parametrize("name", VALID)
def test_every_uri_and_every_secret_of_a_manifest_is_found(name: str) -> None:
    """In a document every field of these names is one, however deep, so that a new one cannot be forgotten."""
    document = {"spec": VALID[name]["spec"]}
    spec = FineTuneJob.model_validate(VALID[name]).spec
    assert sorted(uris(spec)) == sorted(named(document, "uri"))
    assert sorted(credentials(spec)) == sorted(named(document, "credentials"))


def test_a_classifier_s_uri_and_secret_are_found() -> None:
    path = "spec.stages[1].training.earlyStopping.classifier"
    spec = FineTuneJob.model_validate(
        edited(VALID["early stopping by the Instruction Following Score"], {f"{path}.credentials": "hub"})
    ).spec
    assert (f"{path}.uri", "hf://a/b") in uris(spec)
    assert list(credentials(spec)) == [(f"{path}.credentials", "hub")]


@pytest.mark.parametrize(
    ("uri", "claim"), [("pvc://data/a/b.jsonl", "data"), ("pvc://data", "data"), ("hf://data/a", None), ("file:///data", None)]
)
def test_a_claim_is_the_first_part_behind_pvc(uri: str, claim: str | None) -> None:
    assert claim_in(uri) == claim
