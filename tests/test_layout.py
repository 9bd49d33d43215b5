"""The repository's own rules: source roots that shadow nothing, extras that stay small, modules that stay short, a lock without hosts."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from scripts.check_lengths import LONGEST, problems
from scripts.demo_assets import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.mark.parametrize("root", ["operator", "trainer_image"])
def test_source_root_is_no_package(root: str) -> None:
    assert not (ROOT / root / "__init__.py").exists(), f"a package {root} would shadow another module of that name"


def test_standard_library_operator_is_not_shadowed() -> None:
    code = "import operator; print(operator.__file__); operator.itemgetter"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert not found.startswith(str(ROOT / "operator"))


def needed(requirements: Iterable[str]) -> set[str]:
    """Names of the distributions that these bring, all the way down, by the metadata of what is installed here."""
    names: set[str] = set()
    waiting = [Requirement(text) for text in requirements]
    while waiting:
        requirement = waiting.pop()
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        if name in names or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        names.add(name)
        waiting += [
            Requirement(text)
            for text in metadata.requires(name) or []
            if (marker := Requirement(text).marker) is None or any(marker.evaluate({"extra": extra}) for extra in {"", *requirement.extras})
        ]
    return names


@pytest.mark.parametrize(
    ("extras", "brings", "never"),
    [
        ((), {"pydantic"}, {"typer", "torch", "numpy", "kopf", "pyyaml"}),
        (("cli",), {"pydantic", "typer", "rich", "pyyaml"}, {"torch", "numpy", "transformers", "kopf"}),
        (("cli", "operator"), {"pydantic", "typer", "kopf", "kubernetes"}, {"torch", "numpy", "transformers"}),
        (("trainer",), {"pydantic", "torch", "transformers", "peft"}, {"kopf", "kubernetes", "trl", "pytest"}),
    ],
)
def test_extras_bring_what_they_need_and_no_more(extras: tuple[str, ...], brings: set[str], never: set[str]) -> None:
    requirements = [*PROJECT["dependencies"], *(text for extra in extras for text in PROJECT["optional-dependencies"][extra])]
    found = needed(requirements)
    assert brings <= found
    assert not never & found


def test_base_and_command_line_import_without_the_trainer_s_libraries() -> None:
    code = (
        "import sys, finetune_api.validation, finetune_api.plan, finetune_cli.app; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    )
    loaded = set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())
    assert not loaded & {"torch", "numpy", "transformers", "peft", "kopf", "finetune_trainer"}


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-assets.lock", "requirements-go.lock"])
def test_lock_pins_every_package_by_hash_and_names_no_host(lock: str) -> None:
    text = (ROOT / lock).read_text()
    entries = re.split(r"\n(?=\S)", text.strip())
    assert [entry.splitlines()[0] for entry in entries if "--hash=sha256:" not in entry or "==" not in entry] == []
    assert "://" not in text


def test_lengths_are_checked() -> None:
    long = {"operator/finetune_api/long.py": LONGEST + 1, "trainer_image/finetune_trainer/recipe.py": 201}
    assert len(problems(long)) == 3, "one module, the median, the recipe"
    assert problems({"operator/a.py": 400, "operator/b.py": 100, "operator/c.py": 10, "tests/d.py": 390}) == []


def test_examples_run_from_a_folder_or_a_claim() -> None:
    for path in sorted((ROOT / "examples").glob("*.yaml")):
        uris = re.findall(r"^[^#\n]*\buri: ([^\s,}]+)", path.read_text(), flags=re.MULTILINE)
        assert uris, path
        assert all(uri.startswith(("pvc://demo/", "pvc://models/")) for uri in uris), (
            f"{path.name}: the same manifest runs on a machine and on a cluster"
        )
        assert f"examples/{path.name}" in path.read_text(), f"{path.name}: the comment at its top has the command"


def test_paths_named_by_the_makefile_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    modules = set(re.findall(r"-m ((?:scripts|tests)[\w.]*)", makefile))
    assert modules
    for module in modules:
        path = ROOT / Path(*module.split("."))
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module
