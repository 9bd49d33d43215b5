"""What the pods of a job wrote: which pods and containers there are, and their lines, followed through broken connections and new attempts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from finetune_api import constants as c
from finetune_client.errors import NotFound, OperatorMissing, ServerTrouble, Unreachable
from finetune_client.objects import LogLine, parse_time
from finetune_client.transport import Transport
from finetune_client.watch import list_all

LONGEST_LINE: Final = 64 * 1024
"""Bytes of a line that are kept; what is longer is cut, and says so."""
NO_TRAINERS: Final = ("report", "read")
"""Segments of pods that only read."""
PAUSE_SECONDS: Final = 1.0


@dataclass(frozen=True)
class Source:
    """A container of a pod of the job."""

    pod: str
    container: str
    attempt: int | None
    over: bool
    """Whether it has ended: its log is whole."""


def pods_path(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/pods"


async def pods(transport: Transport, namespace: str, uid: str) -> list[Mapping[str, Any]]:
    """The pods of a job that are still there, oldest first; without those that only read."""
    query = {"labelSelector": f"{c.JOB_UID_LABEL}={uid}"}
    found, _ = await list_all(transport, pods_path(namespace), what=f"pods in the namespace {namespace}", query=query)
    trained = [pod for pod in found if _labels(pod).get(c.SEGMENT_LABEL) not in NO_TRAINERS]
    return sorted(trained, key=lambda pod: (pod["metadata"].get("creationTimestamp") or "", pod["metadata"]["name"]))


def sources(pod: Mapping[str, Any]) -> list[Source]:
    """Its containers that have begun, in their order."""
    status = pod.get("status") or {}
    number = _labels(pod).get(c.ATTEMPT_LABEL, "")
    attempt = int(number) if number.isdigit() else None
    states = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    return [
        Source(pod["metadata"]["name"], each["name"], attempt, over="terminated" in state)
        for each in states
        if (state := each.get("state") or {}) and "waiting" not in state
    ]


async def lines(
    transport: Transport, namespace: str, source: Source, *, follow: bool = False, tail: int | None = None
) -> AsyncGenerator[LogLine, None]:
    """The lines of a container; with `follow` until it has ended. A connection that breaks is made again, and no line comes twice.

    Raises:
        NotFound: The pod is gone.
        ClientError: It can't be read.
    """
    path = f"{pods_path(namespace)}/{source.pod}/log"
    query = {"container": source.container, "timestamps": "true"} | ({"tailLines": str(tail)} if tail is not None else {})
    last = ""
    while True:
        asked = {**query, **({"follow": "true"} if follow else {}), **({"sinceTime": last} if last else {})}
        try:
            async with transport.stream(path, what=f"pod {source.pod}", query=asked, silence=None if follow else 60.0) as pieces:
                async for raw in split(pieces):
                    stamp, text = _stamped(raw)
                    if stamp and last and _order(stamp) <= _order(last):
                        continue
                    last = stamp or last
                    yield LogLine(source.pod, source.container, source.attempt, parse_time(stamp), text)
            if not follow or await _over(transport, namespace, source):
                return
        except OperatorMissing as error:  # a 404 about a log names no object
            raise NotFound(f"pod {source.pod} is gone, and its log with it") from error
        except (Unreachable, ServerTrouble):
            if not follow:
                raise
        query.pop("tailLines", None)
        await asyncio.sleep(PAUSE_SECONDS)


async def _over(transport: Transport, namespace: str, source: Source) -> bool:
    """Whether a container has ended, or its pod is gone. By a list: whoever follows a job may list pods, and need not be allowed to get one."""
    query = {"fieldSelector": f"metadata.name={source.pod}"}
    try:
        found, _ = await list_all(transport, pods_path(namespace), what=f"pods in the namespace {namespace}", query=query)
    except (Unreachable, ServerTrouble):
        return False
    return all(each.over for pod in found for each in sources(pod) if each.container == source.container)


async def unread(transport: Transport, namespace: str, uid: str, *, read: Collection[tuple[str, str]]) -> list[Source]:
    """The containers of all pods that have begun and are not among those that were read."""
    found = [source for pod in await pods(transport, namespace, uid) for source in sources(pod)]
    return [source for source in found if (source.pod, source.container) not in read]


async def split(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Lines without their end. Of a longer one than LONGEST_LINE the rest is counted, not kept: a line of a gigabyte takes no memory."""
    kept, dropped = b"", 0
    async for piece in pieces:
        for part, ended in _parts(piece):
            room = LONGEST_LINE - len(kept)
            kept += part[:room]
            dropped += max(0, len(part) - room)
            if ended:
                yield _whole(kept, dropped)
                kept, dropped = b"", 0
    if kept:
        yield _whole(kept, dropped)


def _parts(piece: bytes) -> Iterator[tuple[bytes, bool]]:
    """The parts of a piece, and whether a line ends after each."""
    *ended, rest = piece.split(b"\n")
    for part in ended:
        yield part, True
    if rest:
        yield rest, False


def _whole(kept: bytes, dropped: int) -> bytes:
    return kept + f" … ({dropped:,} bytes more)".encode() if dropped else kept


def _stamped(raw: bytes) -> tuple[str, str]:
    """The time that the kubelet wrote before a line, and the line."""
    stamp, space, rest = raw.partition(b" ")
    text = stamp.decode("ascii", errors="replace")
    if parse_time(text) is None:
        return "", raw.decode("utf-8", errors="replace")
    return text, rest.decode("utf-8", errors="replace") if space else ""


def _order(stamp: str) -> tuple[str, str]:
    """Sorts times of one time zone, whose fractions have any number of digits."""
    whole, _, fraction = stamp.rstrip("Z").partition(".")
    return whole, fraction.ljust(9, "0")


def _labels(pod: Mapping[str, Any]) -> Mapping[str, str]:
    found: Mapping[str, str] = pod["metadata"].get("labels") or {}
    return found
