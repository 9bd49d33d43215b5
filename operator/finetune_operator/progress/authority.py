"""Keeps the endpoint's certificates in the one Secret that the operator may read, and serves the newest.

The Secret is the chart's, empty at first: the operator may read and change it by its name, and make none. Two operators that overlap agree
by its resourceVersion: who comes second reads what the first has written.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import os
import ssl
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from finetune_operator.errors import Conflict, KubeError, NotFound, Refused
from finetune_operator.kinds import SECRET
from finetune_operator.kube import Kube
from finetune_operator.model import Endpoint, Key

log = logging.getLogger(__name__)
LOOK_SECONDS: Final = 3600.0
RETRY_SECONDS: Final = 10.0
Renew = Callable[[dict[str, str], Sequence[str]], Awaitable[dict[str, Any]]]
"""The Secret's texts, and names to serve under → what the Secret should hold (`data`), and what pods trust (`authorities`)."""


class Authority:
    """`endpoint` is None until the certificates are there: pods that are made meanwhile report nothing."""

    def __init__(
        self, kube: Kube, secret: Key, url: str, *, renew: Renew, sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    ) -> None:
        self._sleep = sleep
        self._kube = kube
        self._secret = secret
        self._url = url
        self._renew = renew
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.endpoint: Endpoint | None = None
        self.ready = asyncio.Event()
        """Set once the endpoint can serve."""
        self.tried = asyncio.Event()
        """Set once that is so, or can't be for now."""

    async def run(self) -> None:
        """Look after the certificates for ever. What the Secret or this machine lacks is a person's to mend, and stops no job."""
        while True:
            try:
                await self.look()
                await self._sleep(LOOK_SECONDS)
            except (NotFound, Refused) as error:
                log.error(
                    "no live progress: the Secret %s/%s can't be used (%s): apply the chart again, which makes it and the right to it",
                    *self._secret,
                    error,
                )
                self.tried.set()
                await self._sleep(6 * RETRY_SECONDS)
            except KubeError as error:
                log.warning("the progress endpoint's Secret has to wait: %s", error)
                self.tried.set()
                await self._sleep(RETRY_SECONDS)
            except (RuntimeError, OSError, ValueError) as error:  # of ssl, of the process that renews, or of its answer
                log.error("the progress endpoint's certificates can't be made or served; what is served stays: %r", error)
                self.tried.set()
                await self._sleep(6 * RETRY_SECONDS)

    async def look(self) -> None:
        """Read the Secret, renew what is due, and serve it. Raises KubeError, OSError, and what `renew` raises."""
        host = urlsplit(self._url).hostname or ""
        while True:
            secret = await self._kube.get(SECRET, *self._secret)
            data = {name: _text(value) for name, value in (secret.get("data") or {}).items()}
            if not self.ready.is_set():
                await self._serve_what_is_there(data)
            wanted = await self._renew(data, [host])
            if wanted["data"] != data:
                encoded = {name: base64.b64encode(text.encode()).decode() for name, text in wanted["data"].items()}
                try:
                    await self._kube.replace_secret({**secret, "data": encoded})
                except Conflict:
                    continue
                log.info("the progress endpoint's certificates were renewed")
            await self._serve(wanted["data"], wanted["authorities"])
            return

    async def _serve_what_is_there(self, data: dict[str, str]) -> None:
        """After a restart: whether anything is due takes a process and a second to know, and no pod should wait for it."""
        if all(data.get(name) for name in ("ca.crt", "tls.crt", "tls.key")):
            with contextlib.suppress(ssl.SSLError):
                await self._serve(data, data["ca.crt"] + data.get("next-ca.crt", ""))

    async def _serve(self, data: dict[str, str], authorities: str) -> None:
        await asyncio.to_thread(self._load, data)
        self.endpoint = Endpoint(self._url, authorities)
        self.ready.set()
        self.tried.set()

    def _load(self, data: dict[str, str]) -> None:
        """Serve this leaf from the next handshake on. ssl reads files only."""
        with tempfile.TemporaryDirectory() as folder:
            certificate, key = Path(folder) / "tls.crt", Path(folder) / "tls.key"
            certificate.write_text(data["tls.crt"])
            key.touch(mode=0o600)
            key.write_text(data["tls.key"])
            self.context.load_cert_chain(certificate, key)


async def renew_apart(data: dict[str, str], hosts: Sequence[str]) -> dict[str, Any]:
    """Renew in a process of its own, whose memory ends with it. Raises RuntimeError with what it said, OSError, ValueError."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "finetune_operator.progress.certificates",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=dict(os.environ),
    )
    said, errors = await child.communicate(json.dumps({"data": data, "hosts": list(hosts)}).encode())
    if child.returncode != 0:
        raise RuntimeError(f"the certificates could not be made: {errors.decode(errors='replace')[-1000:]}")
    answer: dict[str, Any] = json.loads(said)
    return answer


def _text(value: str) -> str:
    """A value of a Secret; what is no text is read as nothing, and made anew."""
    try:
        return base64.b64decode(value, validate=True).decode()
    except ValueError:
        return ""
