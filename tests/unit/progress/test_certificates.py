"""The endpoint's certificates over twenty years: a pod that trusts what stood in its annotation is never left without an endpoint."""

from __future__ import annotations

import ssl
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from finetune_operator.progress.certificates import LEAF_BEFORE, LEAF_LIFE, NEXT_BEFORE, SKEW, authorities, read, renewed

HOSTS = ["finetune-operator.finetune.svc"]
BEGIN = datetime(2030, 1, 1, tzinfo=UTC)
LONGEST_JOB = timedelta(days=300)


def leaf(data: dict[str, str]) -> x509.Certificate:
    return x509.load_pem_x509_certificate(data["tls.crt"].encode())


def trusts(bundle: str, data: dict[str, str]) -> bool:
    """Whether one of a pod's authorities signed the leaf that is served."""
    for authority in x509.load_pem_x509_certificates(bundle.encode()):
        if authority.subject == leaf(data).issuer:
            leaf(data).verify_directly_issued_by(authority)
            return True
    return False


def test_an_empty_secret_becomes_an_authority_and_a_leaf() -> None:
    data = renewed({}, HOSTS, BEGIN)
    assert sorted(data) == ["ca.crt", "ca.key", "tls.crt", "tls.key"]
    assert leaf(data).extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName) == HOSTS
    assert leaf(data).not_valid_after_utc == BEGIN + LEAF_LIFE
    assert leaf(data).not_valid_before_utc == BEGIN - SKEW
    assert trusts(authorities(data), data)


@pytest.mark.parametrize(
    ("after", "kept"),
    [(timedelta(days=1), True), (LEAF_LIFE - LEAF_BEFORE - timedelta(seconds=1), True), (LEAF_LIFE - LEAF_BEFORE, False)],
    ids=["the next day", "just before", "due"],
)
def test_the_leaf_is_renewed_ten_days_before_its_end(after: timedelta, kept: bool) -> None:
    data = renewed({}, HOSTS, BEGIN)
    later = renewed(data, HOSTS, BEGIN + after)
    assert (later == data) is kept
    assert later["ca.key"] == data["ca.key"]


def test_another_name_needs_another_leaf() -> None:
    data = renewed({}, HOSTS, BEGIN)
    moved = renewed(data, ["10.96.7.7"], BEGIN)
    assert moved["ca.crt"] == data["ca.crt"]
    assert moved["tls.crt"] != data["tls.crt"]


@pytest.mark.parametrize("name", ["ca.crt", "ca.key", "tls.crt", "tls.key"])
@pytest.mark.parametrize("damage", ["", "no certificate", "of another"])
def test_what_is_damaged_is_made_anew(name: str, damage: str) -> None:
    data = renewed({}, HOSTS, BEGIN)
    other = renewed({}, HOSTS, BEGIN)
    mended = renewed({**data, name: other[name] if damage == "of another" else damage}, HOSTS, BEGIN)
    assert mended[name] != damage
    assert trusts(authorities(mended), mended)
    assert read(mended, "ca") is not None


def test_every_pod_can_report_for_as_long_as_the_longest_job() -> None:
    """The operator looks each day for twenty years; a pod is made each month, and trusts what it was given for three hundred days."""
    data, now, pods, moves = dict[str, str](), BEGIN, list[tuple[datetime, str]](), 0
    while now < BEGIN + timedelta(days=7300):
        before = data
        data = renewed(data, HOSTS, now)
        moves += bool(before) and before["ca.crt"] != data["ca.crt"]
        assert leaf(data).not_valid_before_utc <= now < leaf(data).not_valid_after_utc
        assert not [made for made, bundle in pods if now - made <= LONGEST_JOB and not trusts(bundle, data)]
        pods = [*pods[-12:], (now, authorities(data))]
        now += timedelta(days=15)
    assert moves == 2
    assert LONGEST_JOB < NEXT_BEFORE - LEAF_LIFE


def test_a_client_as_strict_as_python_takes_the_leaf(tmp_path: Path) -> None:
    """Python 3.13 checks by the letter of RFC 5280; the trainer's image has it."""
    data = renewed({}, ["localhost"], datetime.now(UTC))
    for name, text in data.items():
        (tmp_path / name).write_text(text)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
    client = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    left_in, right_in = ssl.MemoryBIO(), ssl.MemoryBIO()
    there = server.wrap_bio(right_in, left_in, server_side=True)
    here = client.wrap_bio(left_in, right_in, server_hostname="localhost")
    done: set[str] = set()
    for _ in range(10):
        for name, side in (("here", here), ("there", there)):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            done.add(name)
    assert done == {"here", "there"}


def test_it_runs_apart() -> None:
    """The operator itself must not hold what is needed once in weeks."""
    code = "import finetune_operator.app, sys; sys.exit('cryptography' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0
