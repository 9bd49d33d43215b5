"""What a token says of itself is enough to refuse it, whatever it says: nothing is asked of the API server for it."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from finetune_api import constants as c
from finetune_operator.progress.identity import _seconds_left
from finetune_operator.progress.refusal import Refusal

NOW = 1_000_000.0


def token(payload: bytes) -> str:
    return f"header.{base64.urlsafe_b64encode(payload).rstrip(b'=').decode()}.signature"


def claims(**said: Any) -> str:
    return token(json.dumps({"exp": NOW + 60, "aud": [c.PROGRESS_AUDIENCE], **said}).encode())


@pytest.mark.parametrize("audience", [c.PROGRESS_AUDIENCE, [c.PROGRESS_AUDIENCE], ["others", c.PROGRESS_AUDIENCE]])
def test_one_of_ours_lives_until_its_end(audience: Any) -> None:
    assert _seconds_left(claims(aud=audience), NOW) == 60


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (claims(exp=NOW), "expired"),
        (claims(aud="https://kubernetes.default.svc"), "not for the audience"),
        (claims(aud=[]), "not for the audience"),
        (claims(aud=5), "no service account token"),
        (claims(aud=None), "no service account token"),
        (claims(exp="soon"), "no service account token"),
        (token(b"[]"), "no service account token"),
        (token(b"\xff"), "no service account token"),
        (token(b"[" * 12_000), "no service account token"),
        ("a", "no service account token"),
        ("a.b.c", "no service account token"),
        ("a.ä.c", "no service account token"),
    ],
)
def test_another_is_refused(said: str, why: str) -> None:
    with pytest.raises(Refusal, match=why) as refused:
        _seconds_left(said, NOW)
    assert refused.value.status == 401
