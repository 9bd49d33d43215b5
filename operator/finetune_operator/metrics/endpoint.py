"""/metrics on a port of its own, so that a NetworkPolicy can say who may read the names of jobs; probes are the kubelet's alone."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4


def application(registry: CollectorRegistry, moment: Callable[[], CollectorRegistry]) -> web.Application:
    """What answers /metrics.

    registry: what a thread may tell. moment: makes, in the loop's thread, what only that thread may read. A scrape of thousands of jobs
    takes a thread some tenths of a second, in which the operator goes on; a second scrape waits for the first.
    """
    one = asyncio.Lock()

    async def metrics(request: web.Request) -> web.Response:
        headers = {"Content-Type": CONTENT_TYPE_PLAIN_0_0_4}
        zipped = "gzip" in request.headers.get("Accept-Encoding", "")
        async with one:
            machinery = generate_latest(moment())
            body = await asyncio.to_thread(_told, registry, machinery, zipped)
        return web.Response(body=body, headers={**headers, "Content-Encoding": "gzip"} if zipped else headers)

    made = web.Application()
    made.add_routes([web.get("/metrics", metrics)])
    return made


def _told(registry: CollectorRegistry, machinery: bytes, zipped: bool) -> bytes:
    text = machinery + generate_latest(registry)
    return gzip.compress(text, 1) if zipped else text
