"""A server that takes the wire formats of all SDKs in the bench, and counts what came.

The first part of a path names a run: `/r7/v1/batch` is Segment's request of run r7. A run whose
name starts with "hang" gets no answers until `/control/answer/RUN` is asked for. JSON is read
strictly. It ends when its stdin does.
"""

from __future__ import annotations

import asyncio
import gzip
import os
import socket
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

import orjson
import uvicorn
import uvloop

# From here on numbers are of events that only warm up.
UNCOUNTED = 10_000_000


@dataclass
class Run:
    """What came of one run."""

    hangs: bool
    numbers: set[int] = field(default_factory=set)
    requests: int = 0
    body_bytes: int = 0
    refused: int = 0
    unknown: int = 0
    last_new_at: float = 0.0

    def take(self, events: list[dict[str, Any]]) -> None:
        for event in events:
            number = int(event["properties"]["order_id"][2:])
            if number < UNCOUNTED and number not in self.numbers:
                self.numbers.add(number)
                self.last_new_at = time.monotonic()


def events_of(path: str, body: bytes) -> list[dict[str, Any]]:
    """Return the events of a request to one of the four addresses."""
    if path == "track":
        events = orjson.loads(parse_qs(body)[b"data"][0])
        return events if isinstance(events, list) else [events]
    batch: list[dict[str, Any]] = orjson.loads(body)["batch"]
    return batch


ADDRESSES = {"api/v1/events": 202, "v1/batch": 200, "batch/": 200, "track": 200}


class Sink:
    """An ASGI application."""

    def __init__(self) -> None:
        self._runs: dict[str, Run] = {}

    def _run(self, name: str) -> Run:
        return self._runs.setdefault(name, Run(hangs=name.startswith("hang")))

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        first, _, path = scope["path"][1:].partition("/")
        body = await _read(receive)
        if first == "control":
            await _answer(send, 200, self._control(path))
            return
        run = self._run(first)
        if run.hangs:
            while (await receive())["type"] != "http.disconnect":
                pass
            return
        await _answer(send, *self._take(run, path, dict(scope["headers"]), body))

    def _control(self, path: str) -> dict[str, Any]:
        what, _, name = path.partition("/")
        run = self._run(name)
        if what == "answer":
            run.hangs = False
        facts = {key: value for key, value in vars(run).items() if key != "numbers"}
        return facts | {"numbers": list(run.numbers) if what == "numbers" else len(run.numbers)}

    def _take(
        self, run: Run, path: str, headers: dict[bytes, bytes], body: bytes
    ) -> tuple[int, dict[str, Any]]:
        run.requests += 1
        run.body_bytes += len(body)
        if path not in ADDRESSES:
            run.unknown += 1
            return 404, {"error": "no such address", "status": 0}
        if headers.get(b"content-encoding") == b"gzip":
            body = gzip.decompress(body)
        try:
            events = events_of(path, body)
        except orjson.JSONDecodeError:
            run.refused += 1
            message = "not JSON"
            return 400, {"error": message, "code": "INVALID_JSON", "message": message, "status": 0}
        run.take(events)
        if path == "api/v1/events":
            counts = {"eventCount": len(events), "duplicates": 0, "rejected": []}
            return 202, {"status": "accepted", **counts}
        return ADDRESSES[path], {"status": 1, "success": True, "error": None}


async def _read(receive: Any) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body


async def _answer(send: Any, status: int, document: dict[str, Any]) -> None:
    body = orjson.dumps(document)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _end_with_stdin() -> None:
    sys.stdin.read()
    os._exit(0)


def main(port: int, core: int | None) -> None:
    """Serve until stdin ends; say the port on stdout."""
    if core is not None:
        os.sched_setaffinity(0, {core})
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    listening = socket.create_server(("127.0.0.1", port), backlog=512)
    print(listening.getsockname()[1], flush=True)
    config = uvicorn.Config(Sink(), lifespan="off", ws="none", log_level="error", access_log=False)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(uvicorn.Server(config).serve(sockets=[listening]))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else None)
