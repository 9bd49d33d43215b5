"""Live progress as one part of the operator: put together here, so that the operator's start needs to know of nothing else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import datetime
from typing import Final

from finetune_operator.index import Index
from finetune_operator.kube import Kube
from finetune_operator.listen import listen
from finetune_operator.model import Endpoint, Key
from finetune_operator.progress.authority import Authority, renew_apart
from finetune_operator.progress.identity import Identifier
from finetune_operator.progress.live import LiveReports
from finetune_operator.progress.server import ProgressServer
from finetune_operator.settings import ProgressSettings
from finetune_operator.workqueue import WorkQueue

BEGIN_SECONDS: Final = 60.0
"""How long the first work waits for the certificates at most: a pod that is made before them reports nothing."""


class Progress:
    def __init__(
        self, settings: ProgressSettings | None, kube: Kube, index: Index, queue: WorkQueue[Key], *, now: Callable[[], datetime]
    ) -> None:
        """settings: None where pods report to nobody."""
        self._settings = settings
        self.live = LiveReports(index, queue, clock=time.monotonic, now=now)
        self.server = ProgressServer(Identifier(kube, index, clock=time.monotonic, now=now).identify, self.live, clock=time.monotonic)
        self._authority = Authority(kube, settings.secret, settings.url, renew=renew_apart) if settings is not None else None

    def endpoint(self) -> Endpoint | None:
        """Where new pods report, None as long as nobody listens."""
        return self._authority.endpoint if self._authority is not None else None

    async def begin(self) -> None:
        """Wait until the endpoint serves, or is known not to for now."""
        if self._authority is not None:
            try:
                async with asyncio.timeout(BEGIN_SECONDS):
                    await self._authority.tried.wait()
            except TimeoutError:
                return

    async def run(self) -> None:
        """Serve, look after the certificates, and give jobs their turns; nothing at all where there is no endpoint.

        Raises:
            ExceptionGroup: The port is taken, or a part died.
        """
        if self._authority is None or self._settings is None:
            return
        async with asyncio.TaskGroup() as parts:
            parts.create_task(self._authority.run())
            parts.create_task(self.live.run())
            parts.create_task(self._serve(self._authority, self._settings.port))

    async def _serve(self, authority: Authority, port: int) -> None:
        await authority.ready.wait()  # a context without a certificate refuses every handshake
        await listen(self.server.application(), port, what="progress", tls=authority.context)
