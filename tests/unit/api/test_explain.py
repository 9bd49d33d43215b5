"""What `kubectl explain` shows: a text for every field, with an example that the field takes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, NamedTuple

import pytest
import yaml
from pydantic import BaseModel, TypeAdapter, create_model

from finetune_api.base import ApiModel
from finetune_api.crd import custom_resource_definition
from finetune_api.kinds import KINDS
from finetune_api.schema import descriptions, models

Schema = dict[str, Any]


class Field(NamedTuple):
    model: type[BaseModel]
    name: str
    text: str


def fields() -> Iterator[Field]:
    for kind in KINDS:
        for model in models(kind.model):
            texts = descriptions(model)
            yield from (Field(model, name, texts[name]) for name in model.model_fields)


FIELDS = sorted(set(fields()), key=lambda field: (field.model.__name__, field.name))


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: f"{field.model.__name__}.{field.name}")
def test_a_field_has_an_example_that_it_takes(field: Field) -> None:
    meaning, _, example = field.text.partition("Example: ")
    assert meaning.strip() and example, field.text
    info = field.model.model_fields[field.name]
    wanted: Any = Annotated[(info.annotation, *info.metadata)] if info.metadata else info.annotation
    alone = create_model("Alone", __base__=ApiModel, value=(wanted, ...))
    TypeAdapter(alone).validate_python({"value": yaml.safe_load(example)})


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_field_of_the_definition_has_its_text(kind: Any) -> None:
    """What kubectl reads is the definition, not the models."""
    root = custom_resource_definition(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    bare = [path for path, node in nodes("", root) if not re.search(r"Example: .", node.get("description", ""))]
    assert [path for path in bare if path.removeprefix(".") not in ("", "apiVersion", "kind", "metadata", "metadata.name")] == []


def nodes(path: str, node: Schema) -> Iterator[tuple[str, Schema]]:
    """Every field of a schema; the entries of a list share its text."""
    yield path, node
    for name, inner in (node.get("properties") or {}).items():
        yield from nodes(f"{path}.{name}", inner)
    for name, inner in (node.get("items", {}).get("properties") or {}).items():
        yield from nodes(f"{path}[].{name}", inner)
