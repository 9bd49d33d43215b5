"""What an answer means, and how a note becomes an Event."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from finetune_operator.errors import AlreadyExists, Conflict, KubeError, NotFound, Refused, Transient, error_of
from finetune_operator.events import cut, event_of
from finetune_operator.model import Note, Severity
from tests.unit.machinery.objects import fine_tune_job

NOW = datetime(2026, 11, 22, 13, 0, 0, tzinfo=timezone(timedelta(hours=1)))


@pytest.mark.parametrize(
    ("code", "reason", "expected"),
    [
        (404, "NotFound", NotFound),
        (409, "AlreadyExists", AlreadyExists),
        (409, "Conflict", Conflict),
        (400, "BadRequest", Refused),
        (403, "Forbidden", Refused),
        (422, "Invalid", Refused),
        (401, "Unauthorized", Transient),
        (410, "Expired", Transient),
        (429, "TooManyRequests", Transient),
        (500, "InternalError", Transient),
        (503, "ServiceUnavailable", Transient),
    ],
)
def test_each_answer_is_one_error(code: int, reason: str, expected: type[KubeError]) -> None:
    error = error_of("POST", "/api/v1/pods", code=code, reason=reason, message="told")
    assert type(error) is expected
    assert str(error) == f"POST /api/v1/pods: {code} {reason}: told"


def note(message: str = "attempt 2 began") -> Note:
    return Note(Severity.NORMAL, "Started", message)


def test_the_same_note_has_the_same_name_and_another_has_another() -> None:
    job = fine_tune_job()
    first, again = (event_of(job, note(), now=NOW, instance=name)["metadata"]["name"] for name in ("operator-1", "operator-2"))
    assert first == again
    assert first.startswith("support.")
    assert event_of(job, note("attempt 3 began"), now=NOW, instance="x")["metadata"]["name"] != first
    assert event_of(fine_tune_job(uid="j2"), note(), now=NOW, instance="x")["metadata"]["name"] != first


def test_an_event_has_its_time_in_utc_and_its_job() -> None:
    event = event_of(fine_tune_job(), note(), now=NOW, instance="x" * 200)
    assert event["eventTime"] == "2026-11-22T12:00:00.000000Z"
    assert event["regarding"]["uid"] == "j1"
    assert len(event["reportingInstance"]) == 128
    assert NOW.astimezone(UTC).hour == 12


@pytest.mark.parametrize(
    "text", ["short", "x" * 1024, "x" * 1025, "é" * 600, "…" * 2000], ids=["short", "exact", "long", "accents", "dots"]
)
def test_a_note_fits_whole_characters_in_its_bytes(text: str) -> None:
    found = cut(text)
    assert len(found.encode()) <= 1024
    assert found == text or found.endswith("…")
