"""The client's pure parts: which context is meant, what an answer means, lines out of pieces, and jobs of newer operators."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from finetune_client import (
    AlreadyExists,
    ClientError,
    ConfigError,
    Conflict,
    Forbidden,
    Invalid,
    Job,
    NotFound,
    OperatorMissing,
    ServerTrouble,
    Unauthorized,
)
from finetune_client.access import load
from finetune_client.errors import Expired, error_of
from finetune_client.logs import LONGEST_LINE, split
from finetune_client.objects import without_what_the_server_writes
from tests.unit.cli.seen_jobs import RUNNING


def kubeconfig(folder: Path, name: str = "config", **contexts: str) -> Path:
    """A kubeconfig with these contexts and their namespaces; the first is the current one."""
    entries = "".join(f"- {{name: {each}, context: {{cluster: c, user: u, namespace: {space}}}}}\n" for each, space in contexts.items())
    text = f"""apiVersion: v1
kind: Config
current-context: {next(iter(contexts), '""')}
clusters: [{{name: c, cluster: {{server: "https://10.0.0.1:6443/"}}}}]
users: [{{name: u, user: {{token: secret}}}}]
contexts:
{entries or "[]"}
"""
    path = folder / name
    path.write_text(text)
    return path


def namespace(*files: Path, context: str | None = None, given: str | None = None) -> str:
    environment = {"KUBECONFIG": ":".join(map(str, files))}
    return asyncio.run(load(None, context, given, environment)).namespace


def test_the_context_and_namespace_are_those_that_kubectl_takes(tmp_path: Path) -> None:
    first, second = kubeconfig(tmp_path, "a", dev="team-a", prod="team-b"), kubeconfig(tmp_path, "b", other="team-c", dev="not-this")
    missing = tmp_path / "missing"
    assert namespace(first) == "team-a"
    assert namespace(missing, first, second, context="other") == "team-c"
    assert namespace(first, second, context="dev") == "team-a", "the first file wins"
    assert namespace(first, given="mine") == "mine"
    access = asyncio.run(load(first))
    assert (access.server, asyncio.run(access.authorization())) == ("https://10.0.0.1:6443", "Bearer secret")


@pytest.mark.parametrize(
    ("text", "context", "words"),
    [
        (None, None, "there is no kubeconfig"),
        ("", "x", "is no mapping"),
        ("a: [", None, "can't be read"),
        ("contexts: []", None, "has no current context"),
        ("current-context: dve\ncontexts: [{name: dev, context: {}}]", None, "no context dve\n→ Did you mean dev?"),
        ("current-context: dev\ncontexts: [{name: dev, context: {cluster: none}}]", None, "context dev of the kubeconfig can't be used"),
        ("\x00", None, "can't be read"),
    ],
)
def test_a_kubeconfig_that_is_wrong_says_how(tmp_path: Path, text: str | None, context: str | None, words: str) -> None:
    path = tmp_path / "config"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        asyncio.run(load(path, context))
    assert words in str(caught.value)


def status(reason: str = "", message: str = "", **details: Any) -> dict[str, Any]:
    return {"kind": "Status", "reason": reason, "message": message, "details": details}


# (HTTP status, what the API server says, the error, words of it)
ANSWERS = [
    (401, status("Unauthorized"), Unauthorized, "does not know these credentials"),
    (403, status("Forbidden", 'finetunejobs is forbidden: User "x" cannot list'), Forbidden, 'User "x" cannot list'),
    (404, {}, OperatorMissing, "does not know FineTuneJobs"),
    (404, status("NotFound", "not found", name="a"), NotFound, "there is no job a"),
    (409, status("AlreadyExists", 'finetunejobs "a" already exists'), AlreadyExists, "already exists"),
    (
        409,
        status("Conflict", "x", causes=[{"field": ".spec.suspend", "message": 'conflict with "argocd"'}]),
        Conflict,
        'spec.suspend: conflict with "argocd"',
    ),
    (409, status("Conflict", "the object has been modified"), Conflict, "has been modified"),
    (410, status("Expired", "too old resource version"), Expired, "too old"),
    (422, status("Invalid", "x", causes=[{"field": "spec.seed", "message": "must be positive"}]), Invalid, "spec.seed: must be positive"),
    (413, {}, Invalid, "refused: job a (413)"),
    (429, status("TooManyRequests", "wait"), ServerTrouble, "can't answer now"),
    (503, {}, ServerTrouble, "can't answer now (503)"),
]


@pytest.mark.parametrize(("code", "said", "kind", "words"), ANSWERS)
def test_each_answer_is_its_error_with_words_for_people(code: int, said: dict[str, Any], kind: type[ClientError], words: str) -> None:
    error = error_of(code, said, what="job a", server="https://c")
    assert type(error) is kind
    assert words in error.message


async def pieces_of(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


@pytest.mark.parametrize(
    ("pieces", "lines"),
    [
        ((b"a\nb", b"c\n", b"d"), [b"a", b"bc", b"d"]),
        ((b"\n\n",), [b"", b""]),
        ((), []),
        ((b"x" * LONGEST_LINE, b"y" * 10, b"\nz"), [b"x" * LONGEST_LINE + " … (10 bytes more)".encode(), b"z"]),
    ],
    ids=["over pieces", "empty lines", "nothing", "a line that is too long"],
)
def test_lines_come_out_of_pieces(pieces: tuple[bytes, ...], lines: list[bytes]) -> None:
    async def collect() -> list[bytes]:
        return [line async for line in split(pieces_of(*pieces))]

    assert asyncio.run(collect()) == lines


def test_a_status_of_a_newer_operator_is_read_without_what_is_new() -> None:
    progress = {"percent": 3, "novel": {"x": 1}}
    job = Job({**RUNNING.manifest, "status": {"phase": "Running", "novel": 1, "progress": progress}})
    assert job.status.progress is not None and job.status.progress.percent == 3
    assert Job({"metadata": {"name": "x"}, "spec": {}, "status": None}).phase == ""


def test_what_get_prints_can_be_applied_again() -> None:
    assert without_what_the_server_writes(RUNNING.manifest) == {
        "apiVersion": "finetune.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": "support-intents", "namespace": "team-a"},
        "spec": RUNNING.manifest["spec"],
    }


def test_nothing_of_the_kubeconfig_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        asyncio.run(load(kubeconfig(tmp_path, dev="x")))
    assert caplog.text == ""
