"""Progress over HTTPS never costs the training anything: whatever the endpoint is, `report` leaves a dict behind and returns."""

from __future__ import annotations

import contextlib
import gc
import itertools
import json
import logging
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from finetune_api.wire import Activity, ProgressUpdate
from finetune_operator.progress.certificates import renewed
from finetune_trainer.remote_progress import LONGEST_BACK_OFF, HttpsSender, RemoteReporter, Undelivered, as_update
from tests.cluster.pods import await_value

TOKEN = "a-token"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    for name, text in renewed({}, ["127.0.0.1"], datetime.now(UTC)).items():
        (folder / name).write_text(text)
    (folder / "token").write_text(f"{TOKEN}\n")
    return folder


class Endpoint:
    """An HTTPS server that answers as it is told, and remembers what it was sent."""

    def __init__(self, certificates: Path, answer: Callable[[BaseHTTPRequestHandler], None]) -> None:
        self.sent: list[dict[str, Any]] = []
        self.tokens: list[str] = []
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                endpoint.sent.append(json.loads(body))
                endpoint.tokens.append(self.headers["Authorization"])
                answer(self)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates / "tls.crt", certificates / "tls.key")
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self._server.server_address[1]}/v1/progress"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def say(status: int, body: bytes = b"{}") -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


@contextlib.contextmanager
def endpoint(certificates: Path, answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[Endpoint]:
    made = Endpoint(certificates, answer)
    try:
        yield made
    finally:
        made.close()


@contextlib.contextmanager
def sender(
    url: str, certificates: Path, *, timeout: float = 60.0, token: Path | None = None, authority: Path | None = None
) -> Iterator[HttpsSender]:
    made = HttpsSender(url, token=token or certificates / "token", authority=authority or certificates / "ca.crt", timeout=timeout)
    with contextlib.closing(made):
        yield made


@contextlib.contextmanager
def reporting(send: HttpsSender) -> Iterator[RemoteReporter]:
    """A reporter with its thread."""
    reporter = RemoteReporter(send, every=0.0, look=0.01)
    thread = reporter.start()
    with contextlib.closing(reporter):
        yield reporter
    thread.join(60)  # it stays in the network until its time-out


def test_what_arrives_is_the_newest_with_the_token_of_the_moment(certificates: Path, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first")
    with endpoint(certificates, say(200)) as there, sender(there.url, certificates, token=token) as send:
        reporter = RemoteReporter(send, every=0.0)
        reporter.report(Activity.TRAIN, stage="domain", done=1, total=9, loss=2.0)
        reporter.report(Activity.TRAIN, stage="domain", done=2, total=9, loss=1.5, percent=20.0)
        reporter.deliver()
        token.write_text("second")
        reporter.report(Activity.SAVE, stage="domain", done=2)
        reporter.report(Activity.TRAIN, stage="domain", done=3, total=9, metrics={"eval_loss": 1.25})
        reporter.report(Activity.TRAIN, stage="domain", done=4, total=9, loss=1.0)
        reporter.report(Activity.EVALUATE, suite="knowledge", done=5, total=10, unit="rows", percent=90.0)
        reporter.deliver()
    assert there.sent == [
        {"activity": "train", "stage": "domain", "done": 2, "total": 9, "percent": 20.0, "loss": 1.5},
        {"activity": "train", "stage": "domain", "done": 4, "total": 9, "loss": 1.0, "metrics": {"eval_loss": 1.25}},
        {"activity": "evaluate", "suite": "knowledge", "done": 5, "total": 10, "unit": "rows", "percent": 90.0},
    ]
    assert there.tokens == ["Bearer first", "Bearer second", "Bearer second"]


def silent(_: BaseHTTPRequestHandler) -> None:
    threading.Event().wait(60)


def endless(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    with contextlib.suppress(OSError):
        while True:
            handler.wfile.write(b"x" * 65536)


def nonsense(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"\x00\xff not HTTP\r\n\r\n")
    handler.close_connection = True


@pytest.mark.parametrize(
    ("answer", "trouble"),
    [
        pytest.param(silent, "TimeoutError", id="accepts and never answers"),
        pytest.param(nonsense, "BadStatusLine", id="speaks no HTTP"),
        pytest.param(say(500, b"<html>"), "answered 500: without a word", id="fails without a word"),
        pytest.param(say(302), "answered 302", id="sends elsewhere"),
        pytest.param(say(409, b'{"error": "a later attempt\\u001b[2J is at work"}'), "answered 409: a later attempt[2J is", id="refuses"),
    ],
)
def test_a_bad_endpoint_is_an_undelivered_report(
    certificates: Path, answer: Callable[[BaseHTTPRequestHandler], None], trouble: str
) -> None:
    with (
        endpoint(certificates, answer) as there,
        sender(there.url, certificates, timeout=0.5 if answer is silent else 60.0) as send,
        pytest.raises(Undelivered) as caught,
    ):
        send(ProgressUpdate(activity=Activity.TRAIN))
    assert trouble in str(caught.value)


def test_an_endless_answer_is_cut(certificates: Path) -> None:
    with endpoint(certificates, endless) as there, sender(there.url, certificates) as send:
        send(ProgressUpdate(activity=Activity.TRAIN))


def test_nobody_there_and_no_token_and_another_authority(certificates: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    update = ProgressUpdate(activity=Activity.TRAIN)
    with sender(f"https://127.0.0.1:{port}/", certificates) as send, pytest.raises(Undelivered, match="ConnectionRefusedError"):
        send(update)
    with (
        sender("https://127.0.0.1/", certificates, token=tmp_path / "token") as send,
        pytest.raises(Undelivered, match=r"token can't be read: FileNotFoundError"),
    ):
        send(update)
    (tmp_path / "ca.crt").write_text(renewed({}, ["127.0.0.1"], datetime.now(UTC))["ca.crt"])
    with endpoint(certificates, say(200)) as there, sender(there.url, certificates, authority=tmp_path / "ca.crt") as send:
        with pytest.raises(Undelivered, match="certificate verify failed"):
            send(update)
        assert there.sent == []
    with pytest.raises(ValueError, match="over https"):
        HttpsSender("http://127.0.0.1/")


def test_a_connection_that_was_closed_meanwhile_is_made_anew(certificates: Path) -> None:
    def once(handler: BaseHTTPRequestHandler) -> None:
        say(200)(handler)
        handler.close_connection = True

    with endpoint(certificates, once) as there, sender(there.url, certificates) as send:
        for _ in range(3):
            send(ProgressUpdate(activity=Activity.TRAIN))
        assert len(there.sent) == 3


def test_an_operator_that_is_gone_for_an_hour_is_asked_seldom_and_heard_at_once_when_it_is_back(caplog: pytest.LogCaptureFixture) -> None:
    now, sent, dead = 0.0, [], True

    def send(update: ProgressUpdate) -> None:
        sent.append(now)
        if dead:
            raise Undelivered("nobody is there")

    reporter = RemoteReporter(send, clock=lambda: now, every=5.0)
    with caplog.at_level(logging.WARNING, "finetune_trainer"):
        for second in range(3600):
            now = float(second)
            reporter.report(Activity.TRAIN, done=second, total=3600)
            reporter.deliver()
    assert sent[:4] == [0.0, 10.0, 30.0, 70.0]
    assert max(later - earlier for earlier, later in itertools.pairwise(sent)) == LONGEST_BACK_OFF
    assert len(sent) < 70
    assert [record.getMessage() for record in caplog.records] == [
        "progress is not reported (the training goes on): nobody is there",
    ] * 6, "once in ten minutes"
    dead, now = False, 3700.0
    for _ in range(3):
        reporter.report(Activity.TRAIN, done=999, total=1000)
        reporter.deliver()
        now += 5.0
    assert sent[-3:] == [3700.0, 3705.0, 3710.0]


class Watched:
    """Every call of Python and C on one thread, while it trains: what it would have to wait for is among them."""

    def __init__(self) -> None:
        self.calls: set[str] = set()

    def __call__(self, frame: Any, event: str, argument: Any) -> None:
        if event == "c_call":
            self.calls.add(
                f"{getattr(argument, '__module__', None) or type(getattr(argument, '__self__', None)).__name__}.{argument.__name__}"
            )
        elif event == "call":
            self.calls.add(f"{frame.f_globals.get('__name__')}.{frame.f_code.co_name}")


def calls_while_reporting(reporter: RemoteReporter, steps: int) -> set[str]:
    """What this thread calls; without the garbage collector, which calls what others left behind."""
    watched = Watched()
    gc.collect()
    gc.disable()
    sys.setprofile(watched)
    try:
        for step in range(steps):
            reporter.report(Activity.TRAIN, done=step, total=steps, loss=1.0)
    finally:
        sys.setprofile(None)
        gc.enable()
    return watched.calls - {"sys.setprofile"}


@pytest.mark.parametrize("answer", [silent, endless, nonsense], ids=["slow", "lying without end", "lying"])
def test_the_training_thread_makes_no_call_that_could_wait(certificates: Path, answer: Callable[[BaseHTTPRequestHandler], None]) -> None:
    """Its thread is stuck in the network meanwhile; the calls of the training thread are counted out, which no clock could show as well."""
    with endpoint(certificates, answer) as there, sender(there.url, certificates, timeout=5.0) as send, reporting(send) as reporter:
        reporter.report(Activity.TRAIN, done=0, total=10_000)
        await_value(lambda: there.sent, what="a delivery that is under way", timeout=300)
        calls = calls_while_reporting(reporter, 10_000)
    assert calls == {"finetune_trainer.remote_progress.report", "deque.append"}


def test_a_dead_endpoint_leaves_the_training_thread_alone_too(certificates: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with sender(f"https://127.0.0.1:{port}/", certificates) as send, reporting(send) as reporter:
        calls = calls_while_reporting(reporter, 1000)
    assert calls == {"finetune_trainer.remote_progress.report", "deque.append"}


@pytest.mark.parametrize(
    ("fields", "sent"),
    [
        ({"loss": float("nan"), "done": 3}, {"done": 3}),
        ({"loss": 1e308, "grad_norm": float("inf"), "learning_rate": 1e-4}, {"learningRate": 1e-4}),
        ({"metrics": {"eval_loss": float("nan"), "eval_accuracy": 0.5}}, {"metrics": {"eval_accuracy": 0.5}}),
        ({"message": "step 3 is saved", "eta_seconds": 4.0, "stage": None}, {}),
    ],
    ids=["no number", "out of hand", "a metric that is none", "what the operator does not read"],
)
def test_only_what_the_operator_would_take_is_sent(fields: dict[str, Any], sent: dict[str, Any]) -> None:
    update = as_update(Activity.TRAIN, fields)
    assert update is not None
    assert json.loads(update.model_dump_json(exclude_defaults=True)) == {"activity": "train", **sent}


def test_what_has_no_sense_is_not_sent() -> None:
    assert as_update(Activity.TRAIN, {"done": -1}) is None
