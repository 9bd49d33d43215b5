"""Manifests mean what they mean to kubectl, and what is wrong with the text has a line."""

from __future__ import annotations

import pytest

from finetune_cli.yaml_reader import read

SCALARS = [
    ("2e-5", 2e-5),
    ("2.0e-5", 2e-5),
    (".5", 0.5),
    ("1e3", 1000),
    ("3.0", 3),
    ("0x10", 16),
    ("0o17", 15),
    ("017", 15),
    ("08", 8),
    ("1_000", 1000),
    ("-7", -7),
    ("+7", 7),
    ("1:30", "1:30"),
    ("2026-11-22", "2026-11-22"),
    ("yes", True),
    ("Off", False),
    ("y", True),
    ("yEs", "yEs"),
    ("~", None),
    ("null", None),
    ("", None),
    ("'12'", "12"),
    ('"yes"', "yes"),
    ("!!str 12", "12"),
    ("12ab", "12ab"),
    ("0123abc", "0123abc"),
    ("1.2.3", "1.2.3"),
]


@pytest.mark.parametrize(("text", "value"), SCALARS)
def test_a_scalar_is_read_as_kubectl_reads_it(text: str, value: object) -> None:
    (document,) = read(f"a: {text}\n")
    assert document.value == {"a": value}
    assert type(document.value["a"]) is type(value)
    assert document.faults == []


FAULTS = [
    ("a tab", "a:\n\tb: 1\n", 2, "a tab stands in the indentation"),
    ("a colon in a value", "a: 1\nb: c: d\n", 2, "mapping values are not allowed"),
    ("an unknown alias", "a: *x\n", 1, "undefined alias"),
    ("an open bracket", "a: [1,\n", 1, "did not find expected node content"),
    ("an open quote", "a: 1\nb: 'x\n", 2, "unexpected end of stream"),
    ("wrong indentation", "a:\n  b: 1\n c: 2\n", 3, "did not find expected key"),
    ("NUL", "a: 1\nb: \0\n", 2, "a NUL byte"),
    ("a control character", "a: 1\nb: \x07\n", 2, "a control character"),
    ("a key twice", "a: 1\nb: 2\na: 3\n", 3, "twice (first on line 1)"),
    ("a key twice, in JSON", '{"a": 1,\n "a": 2}', 2, "twice (first on line 1)"),
    ("a list as key", "? [1]\n: 2\n", 1, "a key must be a word"),
    ("infinity", "a:\n- .inf\n", 2, "no number that JSON has"),
    ("not a number", "a: .nan\n", 1, "no number that JSON has"),
    ("a tag of somebody's", "a: !!python/name:os.system x\n", 1, "is no !!python/name:os.system"),
    ("an alias of itself", "&a [*a]\n", None, "too large or nested too deeply"),
    ("deep nesting", "[" * 5000 + "]" * 5000, None, "too large or nested too deeply"),
    (
        "a bomb",
        "a: &a [1, 1, 1, 1, 1, 1, 1, 1]\n"
        + "".join(f"{b}: &{b} [{', '.join(['*' + a] * 8)}]\n" for a, b in zip("abcdefg", "bcdefgh", strict=True)),
        None,
        "too large",
    ),
]


@pytest.mark.parametrize(("text", "line", "message"), [case[1:] for case in FAULTS], ids=[case[0] for case in FAULTS])
def test_a_fault_of_the_text_has_its_line_and_a_sentence(text: str, line: int | None, message: str) -> None:
    faults = [fault for document in read(text) for fault in document.faults]
    assert len(faults) == 1
    assert message in faults[0].message
    assert faults[0].line == line


def test_every_duplicate_key_is_told_at_once() -> None:
    (document,) = read("a: 1\na: 2\nb: {c: 1, c: 2}\n")
    assert [(fault.path, fault.line) for fault in document.faults] == [("a", 2), ("b.c", 3)]


def test_documents_are_split_and_empty_ones_left_out() -> None:
    assert [document.value for document in read("---\n---\na: 1\n---\n# nothing\n---\nb: 2\n...\n")] == [{"a": 1}, {"b": 2}]
    assert read("") == []
    assert read("# only a comment\n") == []


def test_json_with_tabs_is_read() -> None:
    (document,) = read('{\n\t"a": [1, 2.5,\t"x"],\n\t"b": null\n}\n')
    assert document.value == {"a": [1, 2.5, "x"], "b": None}


def test_anchors_and_merge_keys_work_as_in_kubectl() -> None:
    (document,) = read("x: &x {a: 1, b: 2}\ny: {<<: *x, b: 3}\nz: *x\n")
    assert document.value == {"x": {"a": 1, "b": 2}, "y": {"a": 1, "b": 3}, "z": {"a": 1, "b": 2}}


LINES = [
    ("spec", 2),
    ("spec.stages[1].name", 5),
    ("spec.stages[1].nmae", 5),
    ("spec.stages[9].data.train", 3),
    ("spec.model.uri", 2),
    ("metadata", 1),
    ("", 1),
]


@pytest.mark.parametrize(("path", "line"), LINES)
def test_a_path_has_the_line_of_the_nearest_field_that_exists(path: str, line: int) -> None:
    (document,) = read("kind: FineTuneJob\nspec:\n  stages:\n  - name: one\n  - name: two\n")
    assert document.line_of(path) == line
