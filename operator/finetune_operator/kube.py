"""The one door to the API server: plain dicts in and out, one error class for each thing that a caller can do about a failure.

The official client's own calls go through typed models, which cost time and memory for each object and lose fields that they don't
know; only its connection, TLS and credentials are used.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn, Protocol, TypedDict, Unpack
from urllib.parse import urlencode

import aiohttp
import orjson
from kubernetes.aio.client import Configuration
from kubernetes.aio.client.rest import RESTClientObject

from finetune_operator import access
from finetune_operator.errors import KubeError, Transient, error_of
from finetune_operator.kinds import BY_NAME, FINE_TUNE_JOB, OWN_EVENT, SECRET, Kind
from finetune_operator.model import Manifest

Body = dict[str, Any]
JSON: Final = "application/json"
FIELD_MANAGER = "finetune-operator"
CHUNK = 200  # of whose answer and its objects the operator holds one at a time; a busy API server must come to its end within TIMEOUT
WATCH_SECONDS = 600
WATCH_TIMEOUT = aiohttp.ClientTimeout(total=WATCH_SECONDS + 30, sock_connect=10, sock_read=70)
"""An API server sends a bookmark each minute where nothing else happens."""
TIMEOUT = aiohttp.ClientTimeout(total=30, sock_connect=10)
TOKEN_REVIEW: Body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview"}
METADATA_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"


class More(TypedDict, total=False):
    """Of a request, beside its verb and path."""

    query: Mapping[str, str]
    body: Body
    accept: str
    """JSON where nothing is said, as of `content_type`."""
    content_type: str


class Kube(Protocol):
    """What the operator asks of a cluster. Every method raises a KubeError; objects are never changed in place."""

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Manifest: ...

    def pages(
        self, kind: Kind, namespace: str | None = None, *, labels: str = "", fields: str = "", metadata_only: bool = False
    ) -> AsyncIterator[list[Body]]:
        """All objects of a kind in chunks of 200: all namespaces where none is given."""

    async def create(self, manifest: Manifest) -> Manifest: ...

    async def delete(self, kind: Kind, namespace: str | None, name: str, *, uid: str, grace_seconds: int | None = None) -> None:
        """Delete the object with this uid, its dependents in the background."""

    async def replace_status(self, job: Manifest, status: Manifest) -> Manifest:
        """Write a FineTuneJob's whole status, if it still is at the resourceVersion that `job` was read at."""

    async def patch_event(self, namespace: str, name: str, change: Manifest) -> Manifest:
        """Merge a change into an Event of our own."""

    async def replace_secret(self, secret: Manifest) -> Manifest:
        """Write the operator's own Secret, if it still is at the resourceVersion that it was read at."""

    async def review_token(self, token: str, audience: str) -> Manifest:
        """The status of a TokenReview: whose token it is, if it is for this audience."""


async def list_all(kube: Kube, kind: Kind, namespace: str | None = None, *, labels: str = "", fields: str = "") -> tuple[Manifest, ...]:
    """All objects of a kind at once: only for the few."""
    return tuple([item async for page in kube.pages(kind, namespace, labels=labels, fields=fields) for item in page])


@dataclass(frozen=True)
class Connection:
    """One pool of connections with somebody's credentials."""

    configuration: Configuration
    session: aiohttp.ClientSession
    options: Mapping[str, Any]
    """Of each request."""

    @classmethod
    def to(cls, configuration: Configuration) -> Connection:
        """The official client builds the TLS context. Its own session would look for a netrc, in a thread, before each request, and its own
        request write the body with the slower json."""
        rest = RESTClientObject(configuration)
        connector = aiohttp.TCPConnector(ssl=rest.ssl_context, limit=0)  # as many as workers and watches ask for
        proxy = {"proxy": configuration.proxy, "proxy_headers": configuration.proxy_headers} if configuration.proxy else {}
        named = {"server_hostname": configuration.tls_server_name} if configuration.tls_server_name else {}
        return cls(configuration, aiohttp.ClientSession(connector=connector), {**proxy, **named})

    @property
    def host(self) -> str:
        """`https://HOST:PORT`"""
        return str(self.configuration.host).rstrip("/")


class ApiServer:
    """Kube over HTTPS. A 401 drops the connection, and the credentials are read anew for the next call."""

    def __init__(
        self,
        load: Callable[[], Awaitable[Configuration]],
        *,
        user_agent: str,
        asked: Callable[[str, str, int, float], None] = lambda *_: None,
        heard: Callable[[str | None, float], None] = lambda *_: None,
    ) -> None:
        """asked: is told of each request: its verb, path, code (0 where no answer came) and seconds. heard: of each answer's Date, and the
        seconds that it took."""
        self._load = load
        self._asked = asked
        self._heard = heard
        self._user_agent = user_agent
        self._connection: Connection | None = None
        self._connecting = asyncio.Lock()

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Manifest:
        return await self._call("GET", kind.path(namespace, name))

    async def pages(
        self, kind: Kind, namespace: str | None = None, *, labels: str = "", fields: str = "", metadata_only: bool = False
    ) -> AsyncIterator[list[Body]]:
        async for page, _ in self.listed(kind, namespace, labels=labels, fields=fields, metadata_only=metadata_only):
            yield page

    async def listed(
        self,
        kind: Kind,
        namespace: str | None,
        *,
        labels: str = "",
        fields: str = "",
        metadata_only: bool = False,
        chunk: int = CHUNK,
    ) -> AsyncIterator[tuple[list[Body], str]]:
        """A list in chunks, each with the resourceVersion of the whole. Raises KubeError."""
        query = {"limit": str(chunk), "labelSelector": labels, "fieldSelector": fields}
        accept = METADATA_ONLY if metadata_only else JSON
        while True:
            found = await self._call(
                "GET", kind.path(namespace), query={name: value for name, value in query.items() if value}, accept=accept
            )
            metadata = found.get("metadata", {})
            # Items of a list don't say what they are.
            yield (
                [{**item, "apiVersion": kind.api_version, "kind": kind.name} for item in found.get("items") or []],
                metadata.get("resourceVersion") or "",
            )
            query["continue"] = metadata.get("continue") or ""
            if not query["continue"]:
                return

    async def changes(self, kind: Kind, namespace: str | None, *, labels: str, since: str) -> AsyncIterator[tuple[str, Body]]:
        """What a watch tells after a resourceVersion, bookmarks too, until the API server ends it. Raises KubeError."""
        query = {"watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": str(WATCH_SECONDS), "resourceVersion": since}
        path = kind.path(namespace)
        try:
            response = await self._send("GET", path, query={**query, "labelSelector": labels}, timeout=WATCH_TIMEOUT)
            async with response:
                if response.status >= 400:
                    await self._fail("WATCH", path, response, await response.read())
                rest = b""
                async for data in response.content.iter_any():
                    *lines, rest = (rest + data).split(b"\n")
                    for line in lines:
                        told = orjson.loads(line)
                        if told["type"] == "ERROR":
                            raise _told("WATCH", path, told["object"])
                        yield told["type"], told["object"]
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise Transient("WATCH", path, code=0, reason=type(error).__name__, message=str(error)) from error

    async def create(self, manifest: Manifest) -> Manifest:
        kind = OWN_EVENT if manifest["kind"] == OWN_EVENT.name else BY_NAME[manifest["kind"]]
        path = kind.path(manifest["metadata"].get("namespace"))
        return await self._call("POST", path, query={"fieldManager": FIELD_MANAGER}, body=dict(manifest))

    async def delete(self, kind: Kind, namespace: str | None, name: str, *, uid: str, grace_seconds: int | None = None) -> None:
        # Without a word on propagation, a Job's deletion orphans its pods.
        body: Body = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background", "preconditions": {"uid": uid}}
        if grace_seconds is not None:
            body["gracePeriodSeconds"] = grace_seconds
        await self._call("DELETE", kind.path(namespace, name), body=body)

    async def replace_status(self, job: Manifest, status: Manifest) -> Manifest:
        named = {field: job["metadata"][field] for field in ("name", "namespace", "uid", "resourceVersion")}
        body = {"apiVersion": job["apiVersion"], "kind": job["kind"], "metadata": named, "spec": job["spec"], "status": dict(status)}
        path = FINE_TUNE_JOB.path(named["namespace"], named["name"], "status")
        return await self._call("PUT", path, query={"fieldManager": FIELD_MANAGER}, body=body)

    async def patch_event(self, namespace: str, name: str, change: Manifest) -> Manifest:
        path = OWN_EVENT.path(namespace, name)
        return await self._call(
            "PATCH", path, query={"fieldManager": FIELD_MANAGER}, body=dict(change), content_type="application/merge-patch+json"
        )

    async def replace_secret(self, secret: Manifest) -> Manifest:
        metadata = secret["metadata"]
        path = SECRET.path(metadata["namespace"], metadata["name"])
        return await self._call("PUT", path, query={"fieldManager": FIELD_MANAGER}, body=dict(secret))

    async def review_token(self, token: str, audience: str) -> Manifest:
        body = {**TOKEN_REVIEW, "spec": {"token": token, "audiences": [audience]}}
        reviewed = await self._call("POST", "/apis/authentication.k8s.io/v1/tokenreviews", body=body)
        status: Manifest = reviewed.get("status") or {}
        return status

    async def served(self, api_version: str) -> frozenset[str]:
        """The plurals that the API server knows of a group and version; none where it does not know the group."""
        found = await self._call("GET", f"/apis/{api_version}", missing={"resources": []})
        return frozenset(item["name"] for item in found["resources"])

    async def close(self) -> None:
        """Close the connections: call it before the loop ends."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await connection.session.close()

    async def _call(
        self,
        verb: str,
        path: str,
        *,
        missing: Body | None = None,
        **more: Unpack[More],
    ) -> Body:
        """One request: its answer, or a KubeError. missing: what a 404 means, where it is no error."""
        began, code = time.monotonic(), 0
        try:
            response = await self._send(verb, path, **more)
            data = await response.read()
            code = response.status
            self._heard(response.headers.get("Date"), time.monotonic() - began)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Transient(verb, path, code=0, reason=type(error).__name__, message=str(error)) from error
        finally:
            self._asked(verb, path, code, time.monotonic() - began)
        if response.status == 404 and missing is not None:
            return missing
        if response.status >= 400:
            await self._fail(verb, path, response, data)
        try:
            parsed: Body = orjson.loads(data)
        except ValueError as error:
            raise Transient(verb, path, code=response.status, reason="NotJson", message="the answer is no JSON: cut on its way?") from error
        return parsed

    async def _send(
        self,
        verb: str,
        path: str,
        *,
        timeout: aiohttp.ClientTimeout = TIMEOUT,
        **more: Unpack[More],
    ) -> aiohttp.ClientResponse:
        query, body = more.get("query"), more.get("body")
        async with self._connecting:
            if self._connection is None:
                self._connection = Connection.to(await self._load())
            connection = self._connection
        headers = {"Accept": more.get("accept", JSON), "Content-Type": more.get("content_type", JSON), "User-Agent": self._user_agent}
        if authorization := await access.authorization(connection.configuration):
            headers["Authorization"] = authorization
        url = f"{connection.host}{path}" + (f"?{urlencode(query)}" if query else "")
        sent = orjson.dumps(body) if body is not None else None
        return await connection.session.request(verb, url, headers=headers, data=sent, timeout=timeout, **connection.options)

    async def _fail(self, verb: str, path: str, response: aiohttp.ClientResponse, data: bytes) -> NoReturn:
        """Raise what an answer of 400 or more means."""
        if response.status == 401:
            await self.close()
        said = _status(data)
        raise _told(
            verb,
            path,
            {"code": response.status, "reason": said.get("reason") or str(response.reason), "message": said.get("message") or _text(data)},
        )


def _told(verb: str, path: str, status: Body) -> KubeError:
    """The error that a Status object means."""
    code = int(status.get("code") or 500)
    return error_of(verb, path, code=code, reason=str(status.get("reason") or ""), message=str(status.get("message") or ""))


def _text(data: bytes) -> str:
    return data[:200].decode(errors="replace")


def _status(data: bytes) -> Body:
    """The Status object of an error's answer; empty where a proxy answered something else."""
    try:
        parsed = orjson.loads(data)
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) and parsed.get("kind") == "Status" else {}
