"""The endpoint on this machine, over real TLS, in a thread of its own; who sends is decided by the token alone."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from aiohttp import web

from finetune_operator.index import Index
from finetune_operator.model import Key
from finetune_operator.progress.certificates import renewed
from finetune_operator.progress.identity import Pod, Sender
from finetune_operator.progress.live import LiveReports
from finetune_operator.progress.refusal import Refusal
from finetune_operator.progress.server import ProgressServer
from finetune_operator.workqueue import WorkQueue
from tests.cluster.pods import await_value


async def identify(authorization: str) -> Sender:
    """`Bearer pod-N` is the pod N."""
    scheme, _, token = authorization.partition(" ")
    if scheme != "Bearer" or not token.startswith("pod-"):
        raise Refusal(401, "a bearer token is missing")
    return Sender(Pod("team", token, f"uid-{token}"), "ft-a-1-1", "uid-a", Key("team", "a"), ("domain", "task"))


class Serving:
    """`url` without a path; `live` is what was taken."""

    def __init__(self, folder: Path, *, late: float) -> None:
        for name, text in renewed({}, ["127.0.0.1"], datetime.now(UTC)).items():
            (folder / name).write_text(text)
        self.authority = folder / "ca.crt"
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
        self.queue = WorkQueue[Key](clock=time.monotonic)
        self.live = LiveReports(Index(), self.queue, clock=time.monotonic, now=lambda: datetime.now(UTC))
        self.server = ProgressServer(identify, self.live, clock=time.monotonic, late=late)
        self.port = 0
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run)

    @classmethod
    @contextlib.contextmanager
    def begun(cls, folder: Path, *, late: float = 0.0) -> Iterator[Serving]:
        made = cls(folder, late=late)
        made._thread.start()
        try:
            await_value(lambda: made.port, what="an endpoint that listens")
            yield made
        finally:
            if made._loop is not None:
                made._loop.call_soon_threadsafe(made._stop)
            made._thread.join(30)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def client(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.authority))

    def _run(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        runner = web.AppRunner(self.server.application(), handle_signals=False, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=self.context).start()
            self.port = runner.addresses[0][1]
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()

    def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
