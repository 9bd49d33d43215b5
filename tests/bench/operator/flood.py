"""One pod that sends as much as it can: `python -m tests.bench.operator.flood PORT CA TOKEN CONNECTIONS SECONDS`, of paths and numbers.

Each connection sends reports one upon the other and reads as little as it must; one that is closed is opened again at once.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Final

import uvloop

from finetune_operator.progress.contract import PATH

AT_ONCE: Final = 20
"""Reports of one write."""


def request(token: str) -> bytes:
    body = json.dumps({"activity": "train", "stage": "only", "done": 1, "total": 1000, "percent": 0.1, "loss": 1.0}).encode()
    head = f"POST {PATH} HTTP/1.1\r\nHost: operator\r\nAuthorization: Bearer {token}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def send(port: int, context: ssl.SSLContext, reports: bytes, counted: Counter[str]) -> None:
    """Over one connection after the other, for ever."""
    while True:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="127.0.0.1")
        except OSError:
            counted["refused connections"] += 1
            await asyncio.sleep(0.1)
            continue
        counted["connections"] += 1
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                writer.write(reports)
                await writer.drain()
                counted["reports"] += AT_ONCE
                answer = await reader.read(65536)
                if not answer:
                    break
                counted["answers"] += answer.count(b"HTTP/1.1 ")
        writer.close()


async def run(port: int, authority: Path, token: Path, connections: int, seconds: float) -> Counter[str]:
    context, counted = ssl.create_default_context(cafile=str(authority)), Counter[str]()
    reports = request(token.read_text()) * AT_ONCE
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await asyncio.gather(*(send(port, context, reports, counted) for _ in range(connections)))
    return counted


if __name__ == "__main__":
    port, authority, token, connections, seconds = sys.argv[1:]
    found = uvloop.run(run(int(port), Path(authority), Path(token), int(connections), float(seconds)))
    print("a second: " + ", ".join(f"{count / float(seconds):.0f} {what}" for what, count in found.most_common()))
