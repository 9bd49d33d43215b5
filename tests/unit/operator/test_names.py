"""Names hold what an object is, and fit where Kubernetes puts them."""

from __future__ import annotations

import pytest

from finetune_operator.names import JobName, is_reader, job_name, parse_job_name, read_job_name, run_folder

UID = "0a1b2c3d-0000-4000-8000-000000000001"


@pytest.mark.parametrize("segment", [0, 1, 16, None])
@pytest.mark.parametrize("number", [1, 64, 10101])
@pytest.mark.parametrize("name", ["a", "a" * 63, "b" * 29 + "-c"])
def test_a_name_says_what_it_is(name: str, segment: int | None, number: int) -> None:
    text = job_name(name, UID, segment, number)
    assert parse_job_name(text, name, UID) == JobName(segment, number)
    assert len(text) <= 57, "a pod's name has six characters more"


@pytest.mark.parametrize(
    "text",
    [
        "ft-a-0a1b2c3d-1",
        "ft-a-0a1b2c3d-1-0",
        "ft-a-0a1b2c3d-1-x",
        "ft-a-ffffffff-1-1",
        "ft-b-0a1b2c3d-1-1",
        "xft-a-0a1b2c3d-1-1",
        "ft-a-0a1b2c3d-1-1-1",
        "",
    ],
)
def test_another_name_is_not_ours(text: str) -> None:
    assert parse_job_name(text, "a", UID) is None


@pytest.mark.parametrize("name", ["a", "a" * 63, "x-0a1b2c3d-read", "b-read-0a1b2c3d"])
def test_a_reading_job_is_known_by_its_name_and_no_other_is(name: str) -> None:
    text = read_job_name(name, UID, "1a2b3c4d")
    assert is_reader(text) and is_reader(f"{text}-x7k2p") and parse_job_name(text, name, UID) is None
    assert len(text) <= 57, "a pod's name has six characters more"
    for segment in (0, 1, None):
        assert not is_reader(job_name(name, UID, segment, 12345678)) and not is_reader(f"{job_name(name, UID, segment, 1)}-x7k2p")


def test_no_two_jobs_share_a_folder() -> None:
    assert run_folder("team", "a", UID) == f"team/a-{UID}"
