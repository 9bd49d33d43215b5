"""From the models to a structural schema: what the API server accepts of OpenAPI v3, with the cross-field rules attached.

No references, no unions, no defaults (a default that the server writes would show as a difference to what a GitOps tool keeps in git; programs
fill defaults in themselves). Nothing is nullable: the API server then takes a null for a field that was left out, and so do the models.
"""

from __future__ import annotations

import ast
import inspect
import itertools
from collections.abc import Iterator
from typing import Any, Final, get_args

from pydantic import BaseModel

from finetune_api.kinds import Kind
from finetune_api.v1alpha1.rules import to_cel

Schema = dict[str, Any]
_INT_OR_STRING: Final = "x-kubernetes-int-or-string"
_KEPT: Final = ("type", "enum", "minimum", "maximum", "minLength", "maxLength", "pattern", "minItems", "maxItems", "maxProperties")


def structural_schema(kind: Kind) -> Schema:
    """Return the schema of a kind, ready for the API server."""
    source = kind.model.model_json_schema(mode="validation")
    definitions: dict[str, Schema] = source["$defs"]
    for model in models(kind.model):
        texts = descriptions(model)
        properties = (definitions.get(model.__name__) or source)["properties"]
        for name, field in model.model_fields.items():
            properties[field.alias or name]["description"] = texts[name]
    schema = _structural(source, definitions)
    schema["description"] = kind.description
    properties = schema["properties"]
    properties["apiVersion"], properties["kind"] = {"type": "string"}, {"type": "string"}
    name = properties["metadata"]["properties"]["name"]
    properties["metadata"] = {"type": "object", "properties": {"name": {key: name[key] for key in ("type", "maxLength", "pattern")}}}
    schema["required"] = ["spec"]
    if kind.has_status:
        properties["status"]["default"] = {"observedGeneration": -1}
        conditions = node_at(schema, "status.conditions")
        conditions |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
        # The operator alone writes the status, always whole: who owns each of its fields would be most of the object, and is compared each time.
        properties["status"]["x-kubernetes-map-type"] = "atomic"
    _attach_rules(schema, kind)
    return schema


def models(root: type[BaseModel]) -> list[type[BaseModel]]:
    """Return a model and all that it is made of, each once, outer ones first."""
    found: dict[type[BaseModel], None] = {root: None}
    for field in root.model_fields.values():
        for model in _models_in(field.annotation):
            found.update(dict.fromkeys(models(model)))
    return list(found)


def _models_in(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def descriptions(model: type[BaseModel]) -> dict[str, str]:
    """Return the text below each field in the model's source, its bases' fields among them; raise KeyError later where there is none."""
    found: dict[str, str] = {}
    for owner in reversed(model.__mro__):
        if not issubclass(owner, BaseModel) or owner is BaseModel:
            continue
        body = ast.parse(inspect.getsource(owner)).body[0]
        statements = body.body if isinstance(body, ast.ClassDef) else []
        for statement, after in itertools.pairwise(statements):
            match statement, after:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str() as text)) if (
                    name in owner.model_fields
                ):
                    found[name] = " ".join(text.split())
    return found


def _structural(node: Schema, definitions: dict[str, Schema]) -> Schema:
    """Return a node of pydantic's JSON schema without references, unions, titles and defaults."""
    if "$ref" in node:
        node = {**definitions[node["$ref"].rpartition("/")[2]], **node}
    if "anyOf" in node:
        inner, null = node["anyOf"]
        if null != {"type": "null"}:
            raise ValueError(f"a union cannot be said in a structural schema: {node['anyOf']}")
        described = {"description": node["description"]} if "description" in node else {}
        return _structural({**inner, **described}, definitions)
    if "const" in node:
        node = {**node, "enum": [node["const"]]}
    found: Schema = {"description": node["description"]} if "description" in node else {}
    found |= {key: node[key] for key in _KEPT if key in node}
    for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if exclusive in node:
            found |= {bound: node[exclusive], exclusive: True}
    if node.get("type") == "integer":
        found["format"] = "int64"
    if "items" in node:
        found |= {"x-kubernetes-list-type": "atomic", "items": _structural(node["items"], definitions)}
    if isinstance(node.get("additionalProperties"), dict):
        found["additionalProperties"] = _structural(node["additionalProperties"], definitions)
    elif node.get("additionalProperties") is True and "properties" not in node:
        found["x-kubernetes-preserve-unknown-fields"] = True
    if node.get(_INT_OR_STRING):
        del found["type"]
        found[_INT_OR_STRING] = True
    if "required" in node:
        found["required"] = node["required"]
    if "properties" in node:
        found["properties"] = {name: _structural(value, definitions) for name, value in node["properties"].items()}
    return found


def node_at(schema: Schema, path: str) -> Schema:
    """Return the node of a schema for a path such as `spec.stages[].data`."""
    for part in path.split("."):
        schema = schema["properties"][part.removesuffix("[]")]
        if part.endswith("[]"):
            schema = schema["items"]
    return schema


def _attach_rules(schema: Schema, kind: Kind) -> None:
    for unique in kind.unique:
        node_at(schema, unique.path)["x-kubernetes-list-type"] = "map" if unique.key else "set"
        if unique.key:
            node_at(schema, unique.path)["x-kubernetes-list-map-keys"] = [unique.key]
    for rule in kind.rules:
        for scope in rule.scopes if not rule.warning else ():
            node_at(schema, scope).setdefault("x-kubernetes-validations", []).append(to_cel(rule))
