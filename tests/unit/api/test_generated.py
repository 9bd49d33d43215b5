"""What is generated from the models: up to date, and such as the API server takes and can afford."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune_api import crd
from finetune_api.kinds import KINDS, Kind
from finetune_api.reference import reference
from finetune_api.schema import descriptions, models, structural_schema
from finetune_api.yaml_text import to_yaml
from tests.unit.api.crdvalidator import ROOT, CrdValidator

FREE = "x-kubernetes-preserve-unknown-fields"
HEADROOM = 5
"""The estimate of all rules must stay this many times below the API server's limit: sums change between its releases."""


@pytest.mark.parametrize("name", crd.generated())
def test_is_up_to_date(name: str) -> None:
    assert (ROOT / name).read_text(encoding="utf-8") == crd.generated()[name], f"run `make generate` and commit {name}"


def test_main_writes_into_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    crd.main([str(tmp_path)])
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")} == set(crd.generated())
    assert str(tmp_path) in capsys.readouterr().out


def _kind(kind: Kind) -> str:
    return kind.name


@pytest.mark.parametrize("server", ["api_server", "runtime_server"])
def test_definition_is_taken_and_affordable(server: str, request: pytest.FixtureRequest) -> None:
    validator: CrdValidator = request.getfixturevalue(server)
    definition = validator.definition
    assert definition["errors"] == []
    assert definition["totalCost"] * HEADROOM < definition["totalLimit"]
    assert [rule for rule in definition["rules"] if max(rule["cost"], rule["messageCost"]) >= definition["ruleLimit"]] == []


def test_largest_manifest_stays_in_the_budget(api_server: CrdValidator) -> None:
    from tests.builders import job, stage, suite

    uri = "pvc://models/" + "a" * 900
    stages = [stage(f"s{index}", handOver="merge", data={"train": [{"uri": uri}] * 64}) for index in range(15)]
    suites = [suite(f"q{index}") for index in range(32)]
    gates = [{"suite": "q31", "metric": "loss", "stage": "s14", "minImprovement": {"absolute": 0}} for _ in range(64)]
    verdict = api_server.judge(job(*stages, stage("last"), evaluation={"suites": suites, "gates": gates}))
    assert verdict.errors == []
    assert 0 < verdict.cost < 10_000_000


def test_status_shows_at_creation(api_server: CrdValidator) -> None:
    from tests.builders import job, stage

    assert api_server.judge(job(stage("only"))).stored["status"] == {"observedGeneration": -1}


def test_nothing_else_is_defaulted(api_server: CrdValidator) -> None:
    from tests.builders import job, stage

    document = job(stage("only"))
    assert api_server.judge(document).stored["spec"] == document["spec"]


def _nodes(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, node
    for name, inner in node.get("properties", {}).items():
        yield from _nodes(inner, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if key in node:
            yield from _nodes(node[key], f"{path}[]")


@pytest.mark.parametrize("kind", KINDS, ids=_kind)
def test_everything_is_bounded(kind: Kind) -> None:
    unbounded = []
    for path, node in _nodes(structural_schema(kind)):
        is_map = "additionalProperties" in node or FREE in node
        bound = {"string": "maxLength", "array": "maxItems"}.get(node.get("type", "string"), "maxProperties" if is_map else None)
        if bound and bound not in node and "enum" not in node and path not in (".apiVersion", ".kind"):
            unbounded.append(path)
    assert unbounded == []


@pytest.mark.parametrize("kind", KINDS, ids=_kind)
def test_everything_is_described(kind: Kind) -> None:
    places = (".apiVersion", ".kind", ".metadata")
    assert [
        path
        for path, node in _nodes(structural_schema(kind))
        if not path.startswith(places) and "[]" not in path[-2:] and not node.get("description")
    ] == []


@pytest.mark.parametrize("kind", KINDS, ids=_kind)
def test_numbers_of_the_spec_are_bounded(kind: Kind) -> None:
    spec = structural_schema(kind)["properties"]["spec"]
    numbers = [(path, node) for path, node in _nodes(spec) if node.get("type") in ("integer", "number")]
    assert [path for path, node in numbers if "minimum" not in node or "maximum" not in node] == []


PLAIN_DEFAULTS = [
    (f"{model.__name__}.{name}", field.default, text.split("Default: ", 1)[1])
    for kind in KINDS
    for model in models(kind.model)
    for name, text in descriptions(model).items()
    if (field := model.model_fields[name]) and "Default: " in text and isinstance(field.default, str | int | float)
]


@pytest.mark.parametrize(("name", "default", "stated"), PLAIN_DEFAULTS, ids=[name for name, _, _ in PLAIN_DEFAULTS])
def test_described_default_is_the_default(name: str, default: str | float, stated: str) -> None:
    word = stated.split()[0].rstrip(".;,")
    if isinstance(default, bool | str):
        assert word == str(default).lower() or word == default
    else:
        assert float(word) == default


@pytest.mark.parametrize("kind", KINDS, ids=_kind)
def test_reference_names_every_field(kind: Kind) -> None:
    page = reference(kind)
    missing = [
        path
        for path, _ in _nodes(structural_schema(kind)["properties"]["spec"])
        if path and f"| `{path.rstrip('[]').rpartition('.')[2]}` |" not in page
    ]
    assert missing == []


@pytest.mark.parametrize(
    "value",
    [
        {
            "a": ["x", {"b": 1, "c": [True, None, 2.5]}],
            "d": {},
            "e": [],
            "f": "yes",
            "g": "1",
            "h": "a: b # c",
            "i": 'quote " and \\',
            "j": "",
        },
        [["nested"], [{"deep": {"deeper": ["x"]}}]],
        {"null": "null", "~": "~", "- x": "- x", "ä": "→", "2e-5": "2e-5", "line": "a\nb", "on": "on"},
    ],
    ids=["kinds", "lists", "words that YAML would misread"],
)
def test_yaml_says_what_was_meant(value: object) -> None:
    assert yaml.safe_load(to_yaml(value)) == value
