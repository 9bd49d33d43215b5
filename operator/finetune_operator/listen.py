"""How each of the operator's servers listens: on every address, without a line for each request, until it is cancelled."""

from __future__ import annotations

import asyncio
import logging
import ssl

from aiohttp import web

log = logging.getLogger(__name__)
IDLE_SECONDS = 90.0
"""A connection is kept for the next question."""
MOST_CONNECTIONS = 4096
"""Of one server: each costs memory, whoever opens it and says nothing."""


async def listen(
    application: web.Application, port: int, *, what: str, tls: ssl.SSLContext | None = None, most: int = MOST_CONNECTIONS
) -> None:
    """Answer until cancelled. what: names it in the log. port: 0 for any that is free. most: connections; more are closed at once.

    Raises:
        OSError: The port is taken.
    """
    runner = web.AppRunner(application, handle_signals=False, access_log=None, shutdown_timeout=1.0, keepalive_timeout=IDLE_SECONDS)
    await runner.setup()
    handlers = runner.server
    assert handlers is not None  # it is set up

    def answering() -> asyncio.Protocol:
        return handlers() if len(handlers.connections) < most else Closed()

    try:
        server = await asyncio.get_running_loop().create_server(answering, port=port, ssl=tls, backlog=128)
        try:
            log.info(
                "%s on %s", what, ", ".join(f"{host}:{number}" for host, number, *_ in (each.getsockname() for each in server.sockets))
            )
            await asyncio.Event().wait()
        finally:
            server.close()
    finally:
        await runner.cleanup()


class Closed(asyncio.Protocol):
    """What one connection too many gets."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()
