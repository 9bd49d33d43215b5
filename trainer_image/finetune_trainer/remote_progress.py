"""Progress goes to the operator over HTTPS, from a thread of its own: the training thread only leaves what is newest, and never waits.

A report that can't be delivered is worth nothing a moment later, so nothing is queued or repeated: what is sent is the newest of each kind,
and an endpoint that is dead, slow or lying costs this thread its time-outs and the training nothing. Without the operator, a job trains on.
"""

from __future__ import annotations

import http.client
import json
import logging
import math
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from pydantic import ValidationError

from finetune_api.constants import PROGRESS_CA_FILE, PROGRESS_TOKEN_FILE
from finetune_api.wire import LARGEST_FIGURE, Activity, ProgressUpdate
from finetune_trainer.gpu import gpu_figures

log = logging.getLogger("finetune_trainer")
SEND_SECONDS: Final = 5.0
LOOK_SECONDS: Final = 0.5
TIMEOUT: Final = 5.0
"""Seconds for the connection, and for each answer."""
LONGEST_BACK_OFF: Final = 60.0
SAY_SECONDS: Final = 600.0
"""Between two lines of the log that say the same trouble."""
ANSWER_BYTES: Final = 2048
KEPT: Final = 64
TOLD: Final = frozenset({Activity.PREPARE, Activity.LOAD, Activity.TRAIN, Activity.EVALUATE, Activity.PUBLISH})
"""Saving and handing over are moments, and would hide what is trained."""
_FIGURES: Final = ("epoch", "loss", "learning_rate", "grad_norm", "tokens_per_second")


class Undelivered(Exception):
    """A report did not arrive, or was refused. again: seconds until the next may be tried, None for the usual back-off."""

    def __init__(self, message: str, again: float | None = None) -> None:
        super().__init__(message)
        self.again = again


class Send(Protocol):
    def __call__(self, update: ProgressUpdate) -> None:
        """Deliver one. Raises Undelivered."""
        ...


class RemoteReporter:
    """A Reporter whose `report` appends to a deque, and does nothing else: no lock, no event, no I/O."""

    def __init__(
        self,
        send: Send,
        *,
        gpu: Callable[[], dict[str, int]] = gpu_figures,
        clock: Callable[[], float] = time.monotonic,
        every: float = SEND_SECONDS,
        look: float = LOOK_SECONDS,
    ) -> None:
        """gpu: fields of a GPU, asked for with each delivery. every: seconds between two deliveries. look: seconds after which something new is noticed."""
        self._send = send
        self._gpu = gpu
        self._clock = clock
        self._every = every
        self._look = look
        self._left: deque[tuple[Activity, dict[str, Any]]] = deque(maxlen=KEPT)  # append and popleft are atomic
        self._newest: dict[bool, tuple[Activity, dict[str, Any]]] = {}
        self._closed = False
        self._next = 0.0
        self._failures = 0
        self._said: dict[str, float] = {}

    def start(self) -> threading.Thread:
        """Begin to deliver, until the process ends: nobody has to wait for the last report."""
        thread = threading.Thread(target=self._run, name="progress", daemon=True)
        thread.start()
        return thread

    def close(self) -> None:
        """Begin no more deliveries: while the interpreter ends, nothing is safe to begin. Waits for nothing."""
        self._closed = True

    def report(self, activity: Activity, **fields: Any) -> None:
        self._left.append((activity, fields))

    def deliver(self) -> None:
        """Send what is newest, where it is time. Never raises: nothing that goes wrong here concerns the training."""
        self._gather()
        if not self._newest or self._clock() < self._next:
            return
        self._next = self._clock() + self._every
        waiting, self._newest = self._newest, {}
        gpu = self._gpu()
        try:
            for activity, fields in waiting.values():
                if (update := as_update(activity, fields | gpu)) is not None:
                    self._send(update)
            self._failures = 0
        except Undelivered as trouble:
            self._failures += 1
            pause = trouble.again if trouble.again is not None else self._every * 2 ** min(self._failures, 10)
            self._next = self._clock() + min(LONGEST_BACK_OFF, pause)
            self._say(str(trouble))

    def _gather(self) -> None:
        """Keep the newest about training and the newest about anything else, the later one last."""
        while self._left:
            activity, fields = self._left.popleft()
            if activity in TOLD:
                trains = activity is Activity.TRAIN
                before = self._newest.pop(trains, (activity, {}))[1]
                # What an evaluation measured is told once, and must outlive the report that follows it.
                kept = {"metrics": before["metrics"]} if before.get("metrics") and before.get("stage") == fields.get("stage") else {}
                self._newest[trains] = (activity, kept | fields)

    def _run(self) -> None:
        while not self._closed:
            time.sleep(self._look)
            self.deliver()

    def _say(self, trouble: str) -> None:
        now = self._clock()
        if now - self._said.get(trouble, -math.inf) >= SAY_SECONDS:
            if len(self._said) > KEPT:
                self._said.clear()
            self._said[trouble] = now
            log.warning("progress is not reported (the training goes on): %s", trouble)


def as_update(activity: Activity, fields: dict[str, Any]) -> ProgressUpdate | None:
    """Put a report into its bounds: a figure that is none, or out of hand, is left out. None where nothing sensible remains."""
    known = {name: value for name, value in fields.items() if name in ProgressUpdate.model_fields and value is not None}
    for name in _FIGURES:
        if name in known and not _in_bounds(known[name]):
            del known[name]
    metrics = {name: value for name, value in known.pop("metrics", {}).items() if _in_bounds(value)}
    try:
        return ProgressUpdate.model_validate({**known, "activity": activity, "metrics": dict(list(metrics.items())[:32])})
    except ValidationError as error:
        log.debug("a report of progress that nobody would take: %s", error)
        return None


def _in_bounds(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value) and abs(value) <= LARGEST_FIGURE


class HttpsSender:
    """POSTs to one URL over a kept connection. The token is read anew each time: a kubelet replaces it within the hour."""

    def __init__(
        self, url: str, *, token: Path = Path(PROGRESS_TOKEN_FILE), authority: Path = Path(PROGRESS_CA_FILE), timeout: float = TIMEOUT
    ) -> None:
        """Raises ValueError for a URL that is not https."""
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.hostname:
            raise ValueError(f"progress is reported over https, not to {url}")
        self._host, self._port, self._path = parts.hostname, parts.port or 443, parts.path or "/"
        self._token = token
        self._authority = authority
        self._timeout = timeout
        self._connection: http.client.HTTPSConnection | None = None

    def __call__(self, update: ProgressUpdate) -> None:
        try:
            token = self._token.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise Undelivered(f"{self._token} can't be read: {type(error).__name__}") from error
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        body = update.model_dump_json(exclude_defaults=True).encode()
        status, answer = self._delivered(body, headers, may_be_stale=self._connection is not None)
        if status != 200:
            raise Undelivered(f"the operator answered {status}: {_said(answer)}", LONGEST_BACK_OFF if status in (403, 404, 409) else None)

    def _delivered(self, body: bytes, headers: dict[str, str], *, may_be_stale: bool) -> tuple[int, bytes]:
        """Post; once more where a kept connection turns out to have been closed meanwhile. Raises Undelivered."""
        try:
            return self._post(body, headers)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.close()
            if may_be_stale and isinstance(error, (ConnectionError, ssl.SSLError)):
                return self._delivered(body, headers, may_be_stale=False)
            raise Undelivered(_trouble(error)) from error

    def _post(self, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        if self._connection is None:
            context = ssl.create_default_context(cafile=str(self._authority))
            self._connection = http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout, context=context)
        self._connection.request("POST", self._path, body=body, headers=headers)
        response = self._connection.getresponse()
        answer = response.read(ANSWER_BYTES)
        if not response.isclosed():  # more than anybody has to say
            self.close()
        return response.status, answer

    def close(self) -> None:
        """Let go of the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _trouble(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:300]


def _said(answer: bytes) -> str:
    """The sentence of a refusal, as far as it can be shown."""
    try:
        text = str(json.loads(answer)["error"])
    except (ValueError, KeyError, TypeError):
        text = "without a word"
    return "".join(letter for letter in text if letter.isprintable())[:300]
