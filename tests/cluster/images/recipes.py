"""What each image is made of, and the key that changes when it would. Pure, but for reading the files that go in."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[3]
SUITE = "trixie"
PACKAGES = ("python3", "python3-venv", "ca-certificates")
"""All that debootstrap installs beside Debian's essentials."""

PROJECT = ("pyproject.toml", "README.md", "LICENSE", ".dockerignore", "requirements-build.lock", "operator/finetune_api")


@dataclass(frozen=True)
class Recipe:
    """One image."""

    dockerfile: str
    minutes: float
    """About how long a first build takes on two idle cores."""
    base: str | None = None
    sources: tuple[str, ...] = ()
    """What of this checkout it is made of: files and folders."""
    published: bool = False
    """Pods run it; else it only carries others."""


RECIPES: Mapping[str, Recipe] = {
    "debian": Recipe("tests/cluster/images/debian.Dockerfile", 1.5),
    "torch": Recipe("tests/cluster/images/torch.Dockerfile", 1.5, base="debian"),
    "operator": Recipe(
        "operator/Dockerfile",
        0.5,
        base="debian",
        sources=(*PROJECT, "requirements-operator.lock", "operator/finetune_operator"),
        published=True,
    ),
    "trainer": Recipe(
        "trainer_image/Dockerfile",
        2,
        base="torch",
        sources=(*PROJECT, "requirements-trainer.lock", "operator/finetune_cli", "trainer_image/finetune_trainer"),
        published=True,
    ),
}
"""In the order in which they are built."""


def keys(root: Path = ROOT) -> dict[str, str]:
    """A hash of all that goes into each image, its base included."""
    found: dict[str, str] = {}
    for name, recipe in RECIPES.items():
        digest = hashlib.sha256(f"{found[recipe.base] if recipe.base else (SUITE, PACKAGES)}".encode())
        for path in files(root, (recipe.dockerfile, *recipe.sources)):
            content = path.read_bytes()
            digest.update(f"\0{path.relative_to(root)}\0{len(content)}\0".encode() + content)
        found[name] = digest.hexdigest()
    return found


def labels(name: str, root: Path = ROOT) -> dict[str, str]:
    """Build arguments that say what an image was made of: here its key, since a checkout may hold what no commit does."""
    version = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    return {"VERSION": version, "REVISION": keys(root)[name], "SOURCE": "local"}


def files(root: Path, sources: tuple[str, ...]) -> Iterator[Path]:
    """Every file of these sources, in a fixed order, as .dockerignore lets it in."""
    for source in sources:
        path = root / source
        found = [path] if path.is_file() else sorted(path.rglob("*"))
        yield from (file for file in found if file.is_file() and "__pycache__" not in file.parts)
