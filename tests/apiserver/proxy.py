"""A proxy between an operator and the real API server, in which a test breaks what networks and API servers break.

The operator under test is not changed and knows nothing of it: its kubeconfig names this proxy, which speaks HTTP here and TLS as the
administrator there. Runs in a thread of its own; all attributes may be set from the test's thread.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp
from aiohttp import web

from tests.cluster import Cluster

WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
ONWARD = frozenset({"accept", "content-type", "user-agent"})


@dataclass(frozen=True)
class Request:
    """What passed by: `number` counts the writes from 1, and is 0 for a read."""

    method: str
    path: str
    number: int
    body: bytes


Hook = Callable[[Request], None]


def nothing(_: Request) -> None:
    return None


class Proxy:
    """`before` runs before a write is sent on, `after` when the API server has answered and before the operator hears it.

    A hook that raises ConnectionError breaks the operator's connection at that point; one that kills the operator has crashed it there.
    """

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.before: Hook = nothing
        self.after: Hook = nothing
        self.deaf: re.Pattern[str] | None = None
        """Watches of these paths deliver nothing any more, and stay open."""
        self.down = False
        """Every connection is broken at once."""
        self.refusing: tuple[int, re.Pattern[str]] | None = None
        """Requests for these paths are answered with this code, and their watches end."""
        self.requests: list[Request] = []
        self.kubeconfig = folder / "proxied.kubeconfig"
        self._cluster = cluster
        self._writes = 0
        self._loop = asyncio.new_event_loop()
        self._ended = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._work, name="proxy")

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(60)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(20)
        self._loop.close()

    def writes(self, namespace: str) -> list[Request]:
        """In this namespace: an operator of the whole cluster also sees the jobs that other tests left in theirs."""
        return [request for request in self.requests if request.number and f"/namespaces/{namespace}/" in request.path]

    def _work(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.run_until_complete(_end_what_is_left())

    async def _serve(self) -> None:
        certificates = self._cluster.layout.certificates
        context = ssl.create_default_context(cafile=certificates / "ca.crt")
        context.load_cert_chain(certificates / "admin.crt", certificates / "admin.key")
        connector = aiohttp.TCPConnector(ssl=context, limit=0)
        async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:

            async def handle(request: web.Request) -> web.StreamResponse:
                return await self._handle(session, request)

            application = web.Application(client_max_size=2**24)
            application.router.add_route("*", "/{path:.*}", handle)
            runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.5)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.kubeconfig.write_text(_kubeconfig(f"http://127.0.0.1:{runner.addresses[0][1]}"))
            self._ready.set()
            await self._ended.wait()
            await runner.cleanup()

    async def _handle(self, session: aiohttp.ClientSession, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self._writes += request.method in WRITES
        seen = Request(request.method, request.path_qs, self._writes if request.method in WRITES else 0, body)
        self.requests.append(seen)
        try:
            if self.down:
                raise ConnectionError
            if (code := self._refused(request.path)) is not None:
                status = {"kind": "Status", "status": "Failure", "code": code, "reason": "Refused", "message": "by the test"}
                return web.json_response(status, status=code)
            if seen.number:
                await asyncio.to_thread(self.before, seen)
            headers = {name: value for name, value in request.headers.items() if name.lower() in ONWARD}
            headers["Accept-Encoding"] = "identity"  # long answers would come compressed, and are passed on as they come
            url = self._cluster.layout.server + request.path_qs
            timeout = aiohttp.ClientTimeout(total=None)
            async with session.request(request.method, url, data=body or None, headers=headers, timeout=timeout) as answer:
                if "watch=true" in request.path_qs:
                    return await self._stream(request, answer)
                data = await answer.read()
            if seen.number:
                await asyncio.to_thread(self.after, seen)
            return web.Response(status=answer.status, body=data, headers={"Content-Type": answer.headers.get("Content-Type", "")})
        except (ConnectionError, aiohttp.ClientError):
            if request.transport is not None:
                request.transport.abort()
            raise

    async def _stream(self, request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
        response = web.StreamResponse(status=answer.status, headers={"Content-Type": "application/json"})
        await response.prepare(request)
        async for piece in answer.content.iter_any():
            if self.down or self._refused(request.path) is not None:
                raise ConnectionError
            if self.deaf is None or not self.deaf.search(request.path):
                await response.write(piece)
        return response

    def _refused(self, path: str) -> int | None:
        """The code with which this path is answered, None where it is passed on."""
        return self.refusing[0] if self.refusing is not None and self.refusing[1].search(path) else None


async def _end_what_is_left() -> None:
    """Requests of clients that were killed, or are still listening."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


def _kubeconfig(server: str) -> str:
    return f"""apiVersion: v1
kind: Config
clusters: [{{name: proxied, cluster: {{server: "{server}"}}}}]
users: [{{name: proxied, user: {{}}}}]
contexts: [{{name: proxied, context: {{cluster: proxied, user: proxied}}}}]
current-context: proxied
"""
