"""The documents hold what they promise: links lead somewhere, manifests in them are valid, commands in them exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from finetune_api.constants import GROUP
from finetune_cli.app import app
from finetune_cli.manifests import check_text
from finetune_cli.terminal import plain
from finetune_cli.validate import as_text

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
WRITTEN_BY_HAND = [page for page in PAGES if page.name != "cli.md"]


def anchors(page: Path) -> set[str]:
    """The anchors that a forge makes of headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        goal = (page.parent / path).resolve() if path else page
        assert goal.exists(), f"{target} leads nowhere"
        if anchor and goal.suffix == ".md":
            assert anchor in anchors(goal), f"{target}: no such heading"


def manifests() -> list[tuple[str, str]]:
    """Every whole manifest in a document: a yaml block, or a file that a command writes."""
    found = []
    for page in PAGES:
        text = page.read_text()
        blocks = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) + re.findall(r"<<'END'\n(.*?)^END$", text, re.DOTALL | re.MULTILINE)
        found += [(str(page.relative_to(ROOT)), block) for block in blocks if block.startswith(f"apiVersion: {GROUP}/")]
    return found


def test_there_are_manifests_to_check() -> None:
    assert {page for page, _ in manifests()} >= {"README.md", "docs/tutorial/first-run.md"}


@pytest.mark.parametrize(("page", "text"), manifests())
def test_manifests_in_documents_are_valid(page: str, text: str) -> None:
    checked = check_text(page, text)
    assert [finding for finding in checked.findings if finding.severity == "error"] == []
    assert len(checked.jobs) + len(checked.runtimes) == 1


def test_the_readme_explains_the_demos_own_job() -> None:
    (explained,) = check_text("README.md", dict(manifests())["README.md"]).jobs
    (demo,) = check_text("demo", (ROOT / "examples" / "domain-then-task.yaml").read_text()).jobs
    assert explained == demo


def test_the_readme_shows_what_validate_says_of_two_mistakes() -> None:
    readme = (ROOT / "README.md").read_text()
    (shown,) = re.findall(r"^\$ finetune validate job.yaml\n(.*?)^```", readme, re.DOTALL | re.MULTILINE)
    broken = dict(manifests())["README.md"].replace("      training:", "      trianing:", 1)
    last = "      checkpoint: {everySteps: 10}\n"
    assert broken.count(last) == 1
    broken = broken.replace(last, f"{last}      handOver: merge\n")
    assert shown == as_text([check_text("job.yaml", broken)], plain).rstrip("\n") + "\n"


@pytest.mark.parametrize("page", WRITTEN_BY_HAND, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_in_documents_exist(page: Path) -> None:
    from typer.core import TyperGroup
    from typer.main import get_command

    group = get_command(app)
    assert isinstance(group, TyperGroup)
    for line in re.findall(r"^\$ finetune ([^#\n>|<]*)", page.read_text(), re.MULTILINE):
        name, *words = shlex.split(line)
        if name == "--install-completion":  # typer's own, of no command
            continue
        assert name in group.commands, line
        known = {option for parameter in group.commands[name].params for option in parameter.opts}
        assert {word for word in words if word.startswith("-") and word != "-"} <= known, line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_make_targets_in_documents_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:\$ |`)make ([a-z-]+)", page.read_text())) <= targets
