"""The HTTPS server that pods report to. Everything that it refuses it refuses with a sentence, since that is what stands in the pod's log.

The order is what protects it: size, then who it is, then how often, and only then is the body read as JSON. A pod that reports too often
is answered late, so that asking again at once gains it nothing, and its connection is closed: what it has sent on top is not read.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from finetune_api.wire import ProgressUpdate
from finetune_operator.progress.contract import KUBEFLOW_PATH, LARGEST, PATH, read_kubeflow, read_update
from finetune_operator.progress.identity import Sender
from finetune_operator.progress.limits import Bucket
from finetune_operator.progress.live import LiveReports
from finetune_operator.progress.refusal import Refusal

log = logging.getLogger(__name__)
POD_RATE: Final = 1.0
"""Reports a second of one pod, for long."""
POD_BURST: Final = 10
MOST_PODS: Final = 8192
LATE_SECONDS: Final = 1.0
MOST_LATE: Final = 1000
"""Answers that are held back at once; beyond it the connection is closed."""
MOST_LATE_OF_A_POD: Final = 2
"""Of these. What it has sent on top of one, on however many connections, would be held in memory meanwhile."""
BODY_SECONDS: Final = 10.0
TOO_OFTEN: Final = "this pod reports too often: once in five seconds is enough"


class ProgressServer:
    def __init__(
        self, identify: Callable[[str], Awaitable[Sender]], live: LiveReports, *, clock: Callable[[], float], late: float = LATE_SECONDS
    ) -> None:
        """identify: whose an Authorization header is; raises Refusal. clock: seconds, monotonic. late: seconds after which a refusal for
        haste is answered."""
        self._identify = identify
        self._live = live
        self._clock = clock
        self._late = late
        self._held: Counter[str] = Counter()
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()
        self.answers: Counter[int] = Counter()
        """How many reports were answered, by HTTP status."""

    def application(self) -> web.Application:
        application = web.Application(client_max_size=LARGEST)
        application.add_routes([web.post(PATH, self._answering(read_update)), web.post(KUBEFLOW_PATH, self._answering(read_kubeflow))])
        return application

    def _answering(self, read: Callable[[bytes], ProgressUpdate]) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def answer(request: web.Request) -> web.Response:
            try:
                await self._report(request, read)
                response = web.json_response({"taken": True})
            except Refusal as refusal:
                response = await self._refused(refusal)
            self.answers[response.status] += 1
            return response

        return answer

    async def _report(self, request: web.Request, read: Callable[[bytes], ProgressUpdate]) -> None:
        if (request.content_length or 0) > LARGEST:
            raise Refusal(413, f"a report has at most {LARGEST} bytes")
        sender = await self._identify(request.headers.get("Authorization", ""))
        if not self._bucket(sender.pod.uid).take():
            raise Refusal(429, TOO_OFTEN, pod=sender.pod.uid)
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await request.read()
        except TimeoutError:
            raise Refusal(408, f"the report did not arrive within {BODY_SECONDS:.0f} seconds") from None
        except web.HTTPRequestEntityTooLarge:
            raise Refusal(413, f"a report has at most {LARGEST} bytes") from None
        self._live.take(sender, read(body))

    async def _refused(self, refusal: Refusal) -> web.Response:
        response = web.json_response({"error": refusal.message}, status=refusal.status)
        if refusal.status in (408, 413, 429):
            response.force_close()  # what is still on its way is not read
        if refusal.status == 429:
            response.headers["Retry-After"] = "5"
            if self._held.total() < MOST_LATE and self._held[refusal.pod] < (MOST_LATE_OF_A_POD if refusal.pod else MOST_LATE):
                self._held[refusal.pod] += 1
                try:
                    await asyncio.sleep(self._late)
                finally:
                    self._held[refusal.pod] -= 1
                    self._held += Counter()  # without those that are none any more
        return response

    def _bucket(self, pod: str) -> Bucket:
        bucket = self._buckets.get(pod)
        if bucket is None:
            bucket = self._buckets[pod] = Bucket(POD_RATE, POD_BURST, self._clock)
            while len(self._buckets) > MOST_PODS:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(pod)
        return bucket
