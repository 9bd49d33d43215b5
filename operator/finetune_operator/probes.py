"""The kubelet's two questions: does it still hear (else start it anew), and does it work already."""

from __future__ import annotations

from aiohttp import web

from finetune_operator.listen import listen
from finetune_operator.relist import Relist


async def serve(relist: Relist, port: int) -> None:
    """Answer /healthz and /readyz on every address until cancelled. An API server that is away makes neither fail: a restart is no cure.

    Raises:
        OSError: The port is taken.
    """

    async def alive(_: web.Request) -> web.Response:
        if deaf := relist.deaf():
            return web.Response(status=503, text=f"the watch of {', '.join(deaf)} no longer delivers what a list shows\n")
        return web.Response(text="ok\n")

    async def ready(_: web.Request) -> web.Response:
        return web.Response(text="ok\n") if relist.ready.is_set() else web.Response(status=503, text="not everything is known yet\n")

    application = web.Application()
    application.add_routes([web.get("/healthz", alive), web.get("/readyz", ready)])
    await listen(application, port, what="probes")
