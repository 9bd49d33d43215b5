"""The page on troubleshooting: `kubectl describe` as tests saw it, with neutral names and times, between markers that say which test."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from scripts.demo_assets import ROOT

PAGE: Final = ROOT / "docs/how-to/troubleshooting.md"
REWRITE: Final = "FINETUNE_REWRITE_TROUBLESHOOTING"
"""Set in the environment, tests write what they see into the page instead of comparing it."""
_AT_REST: Final = ("NotFinished", "NotSuspended", "NotStalled", "NotReconciling")
_LEFT_OUT: Final = ("Last Transition Time:", "Observed Generation:", "Snapshot:", "Boot Id:", "Uid:", "Generation:", "UID:")


def neutral(described: str, *, namespace: str) -> str:
    """The same text on every run and machine, without the spec and what says the same for every job."""
    text = described.replace(namespace, "team-a")
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "2030-01-01T12:00:00Z", text)
    text = re.sub(r"(ft-[a-z0-9-]+?)-[0-9a-f]{8}-(\w+)-(\d+)-[a-z0-9]{5}\b", r"\1-0a1b2c3d-\2-\3-x7k2p", text)
    text = re.sub(r"(ft-[a-z0-9-]+?)-[0-9a-f]{8}-(\w+)-(\d+)\b", r"\1-0a1b2c3d-\2-\3", text)
    text = re.sub(r"\([^()]*\): write the name of one", "(team-a-cpu, team-a-cuda): write the name of one", text)
    text = re.sub(r"none of the \d+ nodes", "none of the 3 nodes", text)
    text = re.sub(r"kwok-\d", "node-1", text)
    text = re.sub(r"((?:Gpu|Running) Seconds:\s+)[\d.]+", r"\g<1>60", text)
    head, _, status = text.partition("\nStatus:\n")
    status, _, events = status.partition("\nEvents:")
    return "\n".join([*head.splitlines()[:2], "Status:", *_tidy(status.splitlines()), *_warnings(events)]) + "\n"


def _tidy(lines: list[str]) -> list[str]:
    """The status without conditions that are at rest; each of them is a block that ends with its type."""
    begin = lines.index("  Conditions:") + 1
    end = next(index for index in range(begin, len(lines) + 1) if index == len(lines) or not lines[index].startswith("    "))
    blocks = re.findall(r".*?\n\s+Type:.*?\n", "\n".join([*lines[begin:end], ""]), re.DOTALL)
    telling = [line for block in blocks if not re.search(rf"Reason:\s+({'|'.join(_AT_REST)})\n", block) for line in block.splitlines()]
    return [line.rstrip() for line in [*lines[:begin], *telling, *lines[end:]] if not line.strip().startswith(_LEFT_OUT)]


def _warnings(events: str) -> list[str]:
    """Without their ages; how many normal Events there are depends on how fast a machine is."""
    found = re.findall(r"^\s+Warning\s+(\S+)\s+.*?\sfinetune\S*\s+(.*)$", events, re.MULTILINE)
    return ["Events:", *(f"  Warning  {reason}  {said}" for reason, said in found)] if found else []


def section(page: str, name: str) -> str:
    """What stands between the markers of this name. Raises ValueError where they are missing."""
    found = re.search(rf"<!-- seen: {name} -->\n```console\n(.*?)```\n<!-- end -->", page, re.DOTALL)
    if found is None:
        raise ValueError(f"{PAGE.name} has no place for {name}: <!-- seen: {name} -->, a console block, <!-- end -->")
    return found[1]


def with_section(page: str, name: str, text: str) -> str:
    """The page with another text in this place."""
    return page.replace(f"<!-- seen: {name} -->\n```console\n{section(page, name)}```", f"<!-- seen: {name} -->\n```console\n{text}```")


def read(path: Path = PAGE) -> str:
    return path.read_text()


HEAD: Final = """# Troubleshooting

What a job waits for or failed of stands in its conditions, in one word and a sentence that says where and what to do. `kubectl get ftj` shows the
phase; this shows everything:

    kubectl describe ftj NAME

| read first | it says |
| --- | --- |
| the condition `Accepted` | `False`: the job can't start as it stands; the message names the field or the object |
| the condition `Running` | `False`: what it waits for, by its reason; it goes on by itself when that is there |
| `failure` | why it ended, in which stage, what to do, and the last lines of the log |
| `attempts` | each pod: how it ended, its exit code, the step from which the next went on |

[Every reason of a condition](../reference/conditions.md) and [every failure](../reference/failures.md) have a reference of their own. Below is what ten of them
look like. The tests of the API server's tier produce the output (`python -m scripts.troubleshooting` writes it anew); names, times and nodes are neutral,
and left out are the spec, normal Events, and the conditions that say only that nothing is wrong.
"""


def heading(title: str, do: str) -> str:
    return f"## {title}\n\n{do}\n"


def frame(sections: Iterable[tuple[str, str, str]]) -> str:
    """The page with nothing seen yet. sections: name, title, and what to do."""
    parts = [f"{heading(title, do)}\n<!-- seen: {name} -->\n```console\n```\n<!-- end -->\n" for name, title, do in sections]
    return "\n".join([HEAD, *parts])
