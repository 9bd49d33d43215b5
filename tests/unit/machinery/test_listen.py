"""How the operator's servers listen."""

from __future__ import annotations

import asyncio
import logging
import re

import pytest
from aiohttp import web

from finetune_operator.listen import listen

QUESTION = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


async def hello(request: web.Request) -> web.Response:
    return web.Response(text="hello")


async def ask(port: int) -> tuple[bytes, asyncio.StreamWriter]:
    """What is answered, over a connection that is kept."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(QUESTION)
    try:
        return await reader.read(4096), writer
    except ConnectionError:
        return b"", writer


def test_one_connection_too_many_is_closed_until_another_ends(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def conversation() -> list[bool]:
        application = web.Application()
        application.add_routes([web.get("/", hello)])
        serving = asyncio.create_task(listen(application, 0, what="greetings", most=2))
        while not (found := re.findall(r"greetings on .*\b0\.0\.0\.0:(\d+)", caplog.text)):
            await asyncio.sleep(0.01)
        asked = [await ask(int(found[0])) for _ in range(3)]
        for _, writer in asked:
            writer.close()
            await writer.wait_closed()
        while not (again := await ask(int(found[0])))[0]:
            again[1].close()
            await asyncio.sleep(0.01)
        again[1].close()
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        return [b"hello" in answer for answer, _ in asked]

    assert asyncio.run(conversation()) == [True, True, False]
