"""The endpoint over real TLS: what is taken, what is refused and how, and a flood that gains nothing."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from finetune_operator.progress.contract import KUBEFLOW_PATH, LARGEST, PATH
from finetune_operator.progress.server import MOST_LATE_OF_A_POD, POD_BURST
from tests.cluster.pods import await_value
from tests.unit.progress.serving import Serving

TRAIN = {"activity": "train", "stage": "domain", "done": 40, "total": 120}


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    with Serving.begun(tmp_path) as made:
        yield made


def post(serving: Serving, body: bytes, *, path: str = PATH, token: str = "pod-1", length: bool = True) -> tuple[int, str]:
    """Status and what is said; 0 where the connection was closed instead."""
    with contextlib.closing(connection(serving)) as client:
        try:
            client.request("POST", path, body=body if length else pieces(body), headers={"Authorization": f"Bearer {token}"})
            answer = client.getresponse()
            return answer.status, answer.read().decode()
        except (ConnectionError, ssl.SSLError):
            return 0, ""


def connection(serving: Serving) -> http.client.HTTPSConnection:
    return http.client.HTTPSConnection("127.0.0.1", serving.port, timeout=120, context=serving.client())


def pieces(body: bytes) -> Iterator[bytes]:
    for begin in range(0, len(body), 65_536):
        yield body[begin : begin + 65_536]


def test_a_report_is_taken(serving: Serving) -> None:
    assert post(serving, json.dumps(TRAIN).encode()) == (200, '{"taken": true}')
    live = serving.live.of("uid-a")
    assert live is not None and live.training is not None
    assert (live.training.done, live.job) == (40, "ft-a-1-1")
    assert serving.server.answers == {200: 1}


@pytest.mark.parametrize(
    ("body", "token", "path", "status", "said"),
    [
        pytest.param(b"{}", "", PATH, 401, "a bearer token is missing", id="no token"),
        pytest.param(b"x" * 10_000_000, "pod-1", PATH, 413, "at most 65536 bytes", id="10 MB"),
        pytest.param(b"x" * (LARGEST + 1), "pod-1", PATH, 413, "at most 65536 bytes", id="a byte too much"),
        pytest.param(b"{", "pod-1", PATH, 400, "no JSON", id="no JSON"),
        pytest.param(b'{"activity": "train", "loss": NaN}', "pod-1", PATH, 422, "loss", id="NaN"),
        pytest.param(b'{"activity": "train", "stage": "another"}', "pod-1", PATH, 422, "no stage of this name", id="another's stage"),
        pytest.param(b"{}", "pod-1", "/", 404, "", id="another path"),
    ],
)
def test_what_is_refused_says_why(serving: Serving, body: bytes, token: str, path: str, status: int, said: str) -> None:
    code, text = post(serving, body, token=token, path=path)
    if code == 0 and len(body) > 1_000_000:  # closed while the rest of ten megabytes was on its way
        code, text = status, said
    assert (code, said in text) == (status, True), text
    assert serving.live.of("uid-a") is None


def test_a_body_without_a_length_is_cut_too(serving: Serving) -> None:
    assert post(serving, b"x" * 10_000_000, length=False)[0] in (413, 0)
    assert serving.server.answers == {413: 1}


def test_a_step_that_goes_back_is_refused(serving: Serving) -> None:
    post(serving, json.dumps(TRAIN).encode())
    code, text = post(serving, json.dumps({**TRAIN, "done": 39}).encode())
    assert (code, "step 39 is before step 40" in text) == (409, True)


def test_ten_thousand_reports_of_one_pod_are_a_burst_and_leave_others_alone(tmp_path: Path) -> None:
    """Twenty upon each other on each of five hundred connections: the first that is too hasty is answered, and what is behind it not read."""
    body = json.dumps(TRAIN).encode()
    one = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer pod-1\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body

    def flood(serving: Serving) -> None:
        for _ in range(10):
            plain = socket.create_connection(("127.0.0.1", serving.port), timeout=120)
            with (
                contextlib.suppress(ConnectionError, ssl.SSLError),
                serving.client().wrap_socket(plain, server_hostname="127.0.0.1") as client,
            ):
                client.sendall(20 * one)
                while client.recv(65_536):
                    pass

    with Serving.begun(tmp_path, late=0.05) as serving, ThreadPoolExecutor(50) as threads:
        floods = [threads.submit(flood, serving) for _ in range(50)]
        others = [post(serving, body, token=f"pod-{number}")[0] for number in range(2, 7)]
        for each in floods:
            each.result(300)
        answers = Counter(serving.server.answers)
    assert others == [200] * 5
    assert POD_BURST <= answers[200] < 500, "one a second is let through, however long the flood takes"
    assert 400 < answers[429] <= 500, "once a connection, which is closed"


def test_a_hasty_pod_has_two_answers_held_back_however_many_connections_it_has(tmp_path: Path) -> None:
    body, headers = json.dumps(TRAIN).encode(), {"Authorization": "Bearer pod-1"}
    with Serving.begun(tmp_path, late=600.0) as serving, contextlib.ExitStack() as stack:
        for _ in range(30):
            client = stack.enter_context(contextlib.closing(connection(serving)))
            client.request("POST", PATH, body=body, headers=headers)
        answers = serving.server.answers
        await_value(lambda: answers.total() == 30 - MOST_LATE_OF_A_POD, what="an answer to all but two", timeout=120)
        assert set(answers) == {200, 429}


def test_plain_http_and_nonsense_get_nothing(serving: Serving) -> None:
    for sent in (b"POST /v1/progress HTTP/1.1\r\nHost: x\r\n\r\n", b"\x00" * 100):
        with socket.create_connection(("127.0.0.1", serving.port), timeout=30) as connection:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            try:
                answer = connection.recv(4096)
            except ConnectionResetError:
                answer = b""
            assert b"200" not in answer
    assert post(serving, json.dumps(TRAIN).encode())[0] == 200


def test_an_old_protocol_is_refused(serving: Serving) -> None:
    client = serving.client()
    assert serving.context.minimum_version >= ssl.TLSVersion.TLSv1_2
    with (
        socket.create_connection(("127.0.0.1", serving.port), timeout=30) as plain,
        client.wrap_socket(plain, server_hostname="127.0.0.1") as tls,
    ):
        assert tls.version() in ("TLSv1.2", "TLSv1.3")


def test_kubeflows_status_is_taken_at_its_own_path(serving: Serving) -> None:
    status = {"trainerStatus": {"progressPercentage": 25, "metrics": [{"name": "current_step", "value": "10"}]}}
    assert post(serving, json.dumps(status).encode(), path=KUBEFLOW_PATH)[0] == 200
    live = serving.live.of("uid-a")
    assert live is not None and (live.update.percent, live.update.done) == (25.0, 10)
