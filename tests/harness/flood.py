"""A program that floods: many connections that send one large batch each, again and again.

    python flood.py URL KEY CONNECTIONS EVENTS

It stands back where it shares the processor with the collector, as if it were on another machine;
and the events have no message id, so that the same bytes are new events each time.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from urllib.parse import urlsplit

_LEAST_PRIORITY = 19


async def _flood(host: str, port: int, request: bytes) -> None:
    reader, writer = await asyncio.open_connection(host, port)
    while True:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]
        await reader.readexactly(int(length))


async def _again_and_again(host: str, port: int, request: bytes) -> None:
    while True:
        with contextlib.suppress(OSError, EOFError):
            await _flood(host, port, request)


def _request(key: str, event_count: int) -> bytes:
    event = {"type": "track", "name": "flood", "userId": "u-1", "properties": {"text": "x" * 100}}
    body = json.dumps({"batch": [event] * event_count}).encode()
    head = (
        "POST /api/v1/events HTTP/1.1\r\nHost: collector\r\nContent-Type: application/json\r\n"
        f"x-api-key: {key}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def _main(url: str, key: str, connections: int, event_count: int) -> None:
    address = urlsplit(url)
    assert address.hostname is not None
    assert address.port is not None
    request = _request(key, event_count)
    async with asyncio.TaskGroup() as tasks:
        for _ in range(connections):
            tasks.create_task(_again_and_again(address.hostname, address.port, request))


if __name__ == "__main__":
    os.nice(_LEAST_PRIORITY)
    asyncio.run(_main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
