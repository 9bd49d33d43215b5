"""A small door to the API server for tests: paths and dicts, nothing generated, nothing hidden."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlencode

import urllib3

Object = dict[str, Any]

PATCHES = {
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "json": "application/json-patch+json",
    "apply": "application/apply-patch+yaml",
}


WATCH_SILENCE_SECONDS = 180
"""After so long a connection is taken for dead: an API server sends a bookmark each minute or so."""


class ApiError(Exception):
    """The API server answered with an error: `code`, and its Status object as `status`."""

    def __init__(self, method: str, path: str, code: int, status: Object) -> None:
        super().__init__(f"{method} {path}: {code} {status.get('message', '')}")
        self.code = code
        self.status = status

    @property
    def reason(self) -> str:
        return str(self.status.get("reason", ""))


class Api:
    """Requests as one user. Raises ApiError for an answer of 400 and above, urllib3's errors where there is no answer."""

    def __init__(self, server: str, authority: Path, *, certificate: Path | None = None, key: Path | None = None, token: str = "") -> None:
        self._server = server
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._pool = urllib3.PoolManager(
            ca_certs=str(authority),
            cert_file=str(certificate) if certificate else None,
            key_file=str(key) if key else None,
            maxsize=8,
            retries=False,
        )

    def get(self, path: str, **query: str) -> Object:
        return self._ask("GET", path, query)

    def items(self, path: str, **query: str) -> list[Object]:
        """The objects of a list."""
        return list(self.get(path, **query)["items"])

    def find(self, path: str) -> Object | None:
        """The object, or None where there is none."""
        try:
            return self.get(path)
        except ApiError as error:
            if error.code == 404:
                return None
            raise

    def post(self, path: str, body: Mapping[str, Any], **query: str) -> Object:
        return self._ask("POST", path, query, body)

    def put(self, path: str, body: Mapping[str, Any], **query: str) -> Object:
        return self._ask("PUT", path, query, body)

    def patch(self, path: str, body: Any, *, how: Literal["merge", "strategic", "json", "apply"] = "merge", **query: str) -> Object:
        if how == "apply":
            query = {"fieldManager": "test-cluster", "force": "true", **query}
        return self._ask("PATCH", path, query, body, content=PATCHES[how])

    def delete(self, path: str, *, grace: int | None = None, propagation: str = "Background", **query: str) -> None:
        """Ask for the deletion; what is not there is fine. It does not wait for the end."""
        options = {"propagationPolicy": propagation} | ({} if grace is None else {"gracePeriodSeconds": grace})
        with contextlib.suppress(_NotFound):
            self._ask("DELETE", path, query, options)

    def text(self, path: str) -> str:
        """An answer that is no JSON: a log, /readyz, /metrics."""
        answer = self._pool.request("GET", self._server + path, headers=self._headers, timeout=10)
        if answer.status >= 400:
            raise ApiError("GET", path, answer.status, {"message": answer.data.decode(errors="replace")[:500]})
        return answer.data.decode(errors="replace")

    def watch(
        self, path: str, *, version: str = "", stop: Callable[[], bool] = lambda: False, bookmarks: bool = False, **selectors: str
    ) -> Iterator[tuple[str, Object]]:
        """What is there (as ADDED), then each change as (type, object), until `stop` (asked often) or the server ends it.

        bookmarks: yield those too, which tell no change, but a resourceVersion from which a later watch may begin.
        """
        query = {"watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": "600", **selectors} | (
            {"resourceVersion": version} if version else {}
        )
        timeout = urllib3.Timeout(10, read=WATCH_SILENCE_SECONDS)
        answer = self._pool.request("GET", self._server + path, fields=query, headers=self._headers, preload_content=False, timeout=timeout)
        try:
            if answer.status >= 400:  # not served at this moment: a CRD is being changed, or the server is busy
                time.sleep(0.5)
                return
            with _cut_when(stop, answer):
                yield from (event for event in _events(answer) if bookmarks or event[0] != "BOOKMARK")
        finally:
            answer.close()

    def ready(self) -> bool:
        """Whether every part of the API server says that it is."""
        try:
            return self.text("/readyz") == "ok"
        except (ApiError, urllib3.exceptions.HTTPError):
            return False

    def close(self) -> None:
        self._pool.clear()

    def _ask(self, method: str, path: str, query: Mapping[str, str], body: Any = None, content: str = "application/json") -> Object:
        headers = {**self._headers, "Accept": "application/json"}
        data = None
        if body is not None:
            data = json.dumps(body)
            headers["Content-Type"] = content
        url = self._server + path + (f"?{urlencode(query)}" if query else "")
        answer = self._pool.request(method, url, body=data, headers=headers, timeout=60)
        found: Object = json.loads(answer.data)
        if answer.status >= 400:
            raise (_NotFound if answer.status == 404 else ApiError)(method, path, answer.status, found)
        return found


class _NotFound(ApiError):
    pass


def _events(answer: urllib3.BaseHTTPResponse) -> Iterator[tuple[str, Object]]:
    """The events of a watch, until its connection ends, however it does."""
    waiting = b""
    while True:
        try:
            piece = answer.read1(65536)
        except (urllib3.exceptions.ReadTimeoutError, urllib3.exceptions.ProtocolError):
            return
        if not piece:
            return
        *lines, waiting = (waiting + piece).split(b"\n")
        for line in lines:
            event = json.loads(line)
            yield event["type"], event["object"]


@contextlib.contextmanager
def _cut_when(stop: Callable[[], bool], answer: urllib3.BaseHTTPResponse) -> Iterator[None]:
    """End an answer's connection once `stop` says so: whoever reads it may wait for a minute."""
    over = threading.Event()
    connected: socket.socket | None = getattr(answer.connection, "sock", None)

    def cut() -> None:
        while not over.wait(0.2):
            if stop():
                if connected is not None:
                    with contextlib.suppress(OSError):  # it ended by itself
                        connected.shutdown(socket.SHUT_RDWR)
                return

    threading.Thread(target=cut, name="watch", daemon=True).start()
    try:
        yield
    finally:
        over.set()
