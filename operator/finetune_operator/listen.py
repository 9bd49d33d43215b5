"""How each of the operator's servers listens: on every address, without a line for each request, until it is cancelled."""

from __future__ import annotations

import asyncio
import logging
import ssl

from aiohttp import web

log = logging.getLogger(__name__)
IDLE_SECONDS = 90.0
"""A connection is kept for the next question."""


async def listen(application: web.Application, port: int, *, what: str, tls: ssl.SSLContext | None = None) -> None:
    """Answer until cancelled. what: names it in the log. port: 0 for any that is free.

    Raises:
        OSError: The port is taken.
    """
    runner = web.AppRunner(application, handle_signals=False, access_log=None, shutdown_timeout=1.0, keepalive_timeout=IDLE_SECONDS)
    await runner.setup()
    try:
        await web.TCPSite(runner, port=port, ssl_context=tls).start()
        log.info("%s on %s", what, ", ".join(f"{host}:{number}" for host, number, *_ in runner.addresses))
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()
