"""A list that goes on: what is there, then each change, for as long as the caller wants to hear, whatever happens to the connection.

A watch that breaks goes on at the version where it was. Where the API server has forgotten that version (410 Gone), everything is listed
anew, and what was missed in between is told as changes: nothing is told twice, and nothing that is gone stays.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

from finetune_client.errors import ClientError, Expired, Invalid, ServerTrouble, Unreachable
from finetune_client.transport import Body, Transport

CHUNK = "500"
WATCH_SECONDS = "290"
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 10.0
GONE = 410
Kind = Literal["added", "changed", "deleted"]
Trouble = Callable[[ClientError | None], None]
"""Hears that a connection was lost, and None when it is back."""


class Change(NamedTuple):
    kind: Kind
    manifest: Mapping[str, Any]


def unheard(_: ClientError | None) -> None:
    """For callers who don't show that a connection was lost for a while."""


async def list_all(transport: Transport, path: str, *, what: str, query: Mapping[str, str]) -> tuple[list[Body], str]:
    """All objects in pages, and the version that they are of."""
    items: list[Body] = []
    asked = {**query, "limit": CHUNK}
    while True:
        _, found = await transport.call("GET", path, what=what, query=asked)
        items += found.get("items") or []
        metadata = found.get("metadata") or {}
        if not metadata.get("continue"):
            return items, str(metadata.get("resourceVersion") or "")
        asked["continue"] = metadata["continue"]


async def watch(
    transport: Transport,
    path: str,
    *,
    what: str,
    query: Mapping[str, str],
    trouble: Trouble = unheard,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> AsyncGenerator[Change | None, None]:
    """Yield what is there (added), then None once, then each change.

    Raises:
        ClientError: Of the first list; later, one that time does not mend (a right that was taken away).
    """
    known: dict[str, Body] = {}
    version, first, pause, lost = "", True, FIRST_PAUSE, False
    while True:
        try:
            if not version:
                items, version = await list_all(transport, path, what=what, query=query)
                for change in _differences(known, items):
                    yield change
                if first:
                    yield None
                first = False
            asked = {**query, "watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": WATCH_SECONDS, "resourceVersion": version}
            async with transport.stream(path, what=what, query=asked) as pieces:
                if lost:
                    trouble(None)
                    lost = False
                async for kind, manifest in _events(pieces):
                    pause = FIRST_PAUSE
                    version = manifest["metadata"]["resourceVersion"]
                    change_ = _taken(known, kind, manifest)
                    if change_ is not None:
                        yield change_
        except Expired:
            version = ""
            await sleep(pause)
        except (Unreachable, ServerTrouble) as error:
            if first:
                raise
            trouble(error)
            lost = True
            await sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        except Invalid as error:
            if first or not version:
                raise
            trouble(error)  # a version from another life of the cluster's storage
            version, lost = "", True
            await sleep(pause)


def _differences(known: dict[str, Body], items: list[Body]) -> Iterator[Change]:
    """What a list says beside what is known already, which becomes what the list says."""
    there = {item["metadata"]["uid"]: item for item in items}
    for uid in [uid for uid in known if uid not in there]:
        yield Change("deleted", known.pop(uid))
    for uid, item in there.items():
        before = known.get(uid)
        known[uid] = item
        if before is None:
            yield Change("added", item)
        elif before["metadata"]["resourceVersion"] != item["metadata"]["resourceVersion"]:
            yield Change("changed", item)


def _taken(known: dict[str, Body], kind: str, manifest: Body) -> Change | None:
    uid = manifest["metadata"].get("uid")
    if kind == "BOOKMARK" or uid is None:
        return None
    if kind == "DELETED":
        known.pop(uid, None)
        return Change("deleted", manifest)
    new = uid not in known
    known[uid] = manifest
    return Change("added" if new else "changed", manifest)


async def _events(pieces: AsyncIterator[bytes]) -> AsyncIterator[tuple[str, Body]]:
    """Each event of a watch; a line that was cut off on its way is dropped with its connection."""
    waiting = b""
    async for piece in pieces:
        *lines, waiting = (waiting + piece).split(b"\n")
        for line in lines:
            try:
                event = json.loads(line)
            except ValueError as error:
                raise ServerTrouble("a watch was cut in the middle of a line", "It is tried again.") from error
            if event["type"] == "ERROR":
                status = event["object"]
                if status.get("code") == GONE:
                    raise Expired("the API server has forgotten the version of a watch", "It begins anew.")
                raise ServerTrouble(f"the API server ended a watch: {status.get('message', '')}", "It is tried again.")
            yield event["type"], event["object"]
