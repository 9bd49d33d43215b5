"""What goes wrong around the endpoint's certificates stops no job: it is logged, tried again, and the operator goes on."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from finetune_operator.errors import KubeError, NotFound, Refused, Transient
from finetune_operator.model import Key
from finetune_operator.progress.authority import Authority
from finetune_operator.progress.certificates import authorities, renewed

URL = "https://finetune-operator.finetune.svc:8443/v1/progress"
HOSTS = ["finetune-operator.finetune.svc"]
GOOD = renewed({}, HOSTS, datetime.now(UTC))
Failure = Callable[[], Any]


class OneSecret:
    """An API server with the operator's Secret; `failures` are raised first, one at each reading."""

    def __init__(self, *failures: KubeError) -> None:
        self.failures = list(failures)

    async def get(self, *_: object) -> dict[str, Any]:
        if self.failures:
            raise self.failures.pop(0)
        return {"metadata": {"resourceVersion": "1"}, "data": {}}

    async def replace_secret(self, secret: dict[str, Any]) -> dict[str, Any]:
        return secret


async def looked_after(kube: OneSecret, *answers: Failure) -> tuple[Authority, list[bool]]:
    """Run an authority until it serves or has waited ten times; `answers` are the first renewals'. Returns whether it had `tried` at each wait."""
    left, tried = list(answers), list[bool]()

    async def renew(data: dict[str, str], hosts: Sequence[str]) -> dict[str, Any]:
        return left.pop(0)() if left else {"data": GOOD, "authorities": authorities(GOOD)}

    async def sleep(_: float) -> None:
        tried.append(authority.tried.is_set())
        if authority.ready.is_set() or len(tried) > 10:
            raise asyncio.CancelledError

    authority = Authority(kube, Key("finetune", "progress"), URL, renew=renew, sleep=sleep)  # type: ignore[arg-type]
    with pytest.raises(asyncio.CancelledError):
        await authority.run()
    return authority, tried


def raising(error: Exception) -> Failure:
    def fail() -> Any:
        raise error

    return fail


@pytest.mark.parametrize(
    "answer",
    [
        raising(RuntimeError("the certificates could not be made: no module")),
        raising(FileNotFoundError("no python")),
        raising(BlockingIOError("no process can be made")),
        lambda: json.loads("cut sho"),
        lambda: {"data": {**GOOD, "tls.crt": "no certificate"}, "authorities": ""},
        lambda: {"data": {**GOOD, "tls.key": renewed({}, HOSTS, datetime.now(UTC))["tls.key"]}, "authorities": ""},
    ],
    ids=["renewing failed", "no interpreter", "no process", "no JSON", "no certificate", "the key of another"],
)
def test_whatever_fails_here_is_tried_again(answer: Failure, caplog: pytest.LogCaptureFixture) -> None:
    authority, tried = asyncio.run(looked_after(OneSecret(), answer))
    assert tried == [True, True], "it says that it can't be for now, waits, and then serves"
    assert authority.endpoint is not None
    assert "certificates can't be made or served" in caplog.text
    assert isinstance(authority.context, ssl.SSLContext)


@pytest.mark.parametrize("kind", [NotFound, Refused, Transient])
def test_an_api_server_that_refuses_is_asked_again(kind: type[KubeError]) -> None:
    authority, tried = asyncio.run(looked_after(OneSecret(kind("GET", "/x", code=500, reason="r", message="m"))))
    assert tried == [True, True]
    assert authority.endpoint is not None
