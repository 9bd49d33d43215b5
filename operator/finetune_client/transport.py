"""Requests to the API server: plain dicts in and out, an error of `errors.py` for each failure, and streams that a caller reads piece by piece."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

import aiohttp

from finetune_client.access import Access
from finetune_client.errors import ClientError, ServerTrouble, Unauthorized, Unreachable, error_of

Body = dict[str, Any]
CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 60.0
SILENCE_SECONDS = 90.0
"""A watch hears at least a bookmark each minute: longer silence means that nobody is there."""


class Transport:
    """One connection pool. Credentials that ran out are read anew, once a request."""

    def __init__(self, load: Callable[[], Awaitable[Access]], *, user_agent: str) -> None:
        self._load = load
        self._user_agent = user_agent
        self._access: Access | None = None
        self._session: aiohttp.ClientSession | None = None

    async def access(self) -> Access:
        """Raises ConfigError where there is none."""
        if self._access is None:
            self._access = await self._load()
        return self._access

    async def call(
        self,
        verb: str,
        path: str,
        *,
        what: str,
        query: Mapping[str, str] | None = None,
        body: Body | None = None,
        content_type: str = "application/json",
    ) -> tuple[int, Body]:
        """One request: its HTTP status and its answer. what: the object that it is about, for the error's sentence.

        Raises:
            ClientError: One of the first two levels of its tree.
        """
        try:
            async with self._open(verb, path, what=what, query=query, body=body, content_type=content_type, total=ANSWER_SECONDS) as answer:
                data = await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise await self._unreachable(error) from error
        return answer.status, _parsed(data, await self._server())

    @asynccontextmanager
    async def stream(
        self, path: str, *, what: str, query: Mapping[str, str], silence: float | None = SILENCE_SECONDS
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """The pieces of an answer that goes on, as they come. silence: seconds without a piece after which nobody is there any more.

        Raises:
            Unreachable: It could not be opened, or broke off.
            ClientError: It was refused.
        """
        try:
            async with self._open("GET", path, what=what, query=query, read=silence) as answer:
                yield answer.content.iter_any()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise await self._unreachable(error) from error

    async def close(self) -> None:
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()

    @asynccontextmanager
    async def _open(
        self,
        verb: str,
        path: str,
        *,
        what: str,
        query: Mapping[str, str] | None = None,
        body: Body | None = None,
        content_type: str = "application/json",
        total: float | None = None,
        read: float | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        timeout = aiohttp.ClientTimeout(total=total, sock_connect=CONNECT_SECONDS, sock_read=read)
        data = json.dumps(body).encode() if body is not None else None
        for last in (False, True):
            access = await self.access()
            headers = {"Accept": "application/json", "Content-Type": content_type, "User-Agent": self._user_agent}
            if authorization := await access.authorization():
                headers["Authorization"] = authorization
            url = f"{access.server}{path}" + (f"?{urlencode(query)}" if query else "")
            session = self._pool(access)
            async with session.request(
                verb,
                url,
                data=data,
                headers=headers,
                timeout=timeout,
                proxy=access.configuration.proxy,
                server_hostname=access.configuration.tls_server_name or None,
            ) as answer:
                if answer.status < 400:
                    yield answer
                    return
                error = error_of(answer.status, _status(await answer.read()), what=what, server=access.server)
            if last or not isinstance(error, Unauthorized):
                raise error
            self._access = None
            await self.close()

    def _pool(self, access: Access) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=access.tls(), limit=16), trust_env=True)
        return self._session

    async def _server(self) -> str:
        return (await self.access()).server

    async def _unreachable(self, error: Exception) -> ClientError:
        server = await self._server()
        if isinstance(error, aiohttp.ClientConnectorCertificateError | ssl.SSLCertVerificationError):
            return Unreachable(f"{server} is not who the kubeconfig expects: {error}", "Get a new kubeconfig for this cluster.")
        said = "no answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
        return Unreachable(
            f"no connection to {server}: {said}", "Is the cluster up, the network (VPN) there, and the context the right one?"
        )


def _parsed(data: bytes, server: str) -> Body:
    try:
        found = json.loads(data)
    except ValueError as error:
        raise ServerTrouble(
            f"{server} answered what is no JSON", "Is it a Kubernetes API server? A proxy between may ask for a login."
        ) from error
    return found if isinstance(found, dict) else {}


def _status(data: bytes) -> Body:
    """The Status object of an error's answer; empty where something else was answered."""
    try:
        found = json.loads(data)
    except ValueError:
        return {}
    return found if isinstance(found, dict) and found.get("kind") == "Status" else {}
