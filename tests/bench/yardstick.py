"""The least that a collector could do: parse a batch, and group-commit it into the same table.

No key, no limits, no validation, no verdicts, no log of commits, no users. What the collector
takes beyond this is the price of its promises.
"""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import UTC, datetime
from typing import Any

import asyncpg
import orjson
import uvicorn
import uvloop

_INSERT = """
insert into events (commit_id, project_id, message_id, "timestamp", received_at,
    timestamp_clamped, type, name, user_id, properties, context)
select 0, 1, message_id, "timestamp", $7, false, type, name, user_id, properties, context
from unnest($1::uuid[], $2::timestamptz[], $3::text[], $4::text[], $5::text[], $6::jsonb[],
    $8::jsonb[]) as input (message_id, "timestamp", type, name, user_id, properties, context)
on conflict (project_id, message_id) do nothing
"""
_MAX_GROUP_EVENTS = 1000

Row = tuple[str, datetime, str, str, str, str, str]


class Yardstick:
    """An ASGI application."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._waiting: list[tuple[list[Row], asyncio.Future[None]]] = []
        self._wake = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        rows = [
            (
                event["messageId"],
                datetime.fromisoformat(event["timestamp"]),
                event["type"],
                event["name"],
                event["userId"],
                orjson.dumps(event["properties"]).decode(),
                orjson.dumps(event["context"]).decode(),
            )
            for event in orjson.loads(body)["batch"]
        ]
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((rows, done))
        self._wake.set()
        await done
        answer = b'{"status":"accepted"}'
        headers = [(b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": 202, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    async def write(self) -> None:
        """Commit group after group, for ever."""
        while True:
            await self._wake.wait()
            group: list[tuple[list[Row], asyncio.Future[None]]] = []
            events = 0
            while self._waiting and events < _MAX_GROUP_EVENTS:
                group.append(self._waiting.pop(0))
                events += len(group[-1][0])
            if not self._waiting:
                self._wake.clear()
            columns = [list(c) for c in zip(*(r for rows, _ in group for r in rows), strict=True)]
            await self._pool.execute(_INSERT, *columns[:6], datetime.now(UTC), columns[6])
            for _, done in group:
                done.set_result(None)


async def main(port: int) -> None:
    """Serve until stopped."""
    pool = await asyncpg.create_pool(os.environ["ANALYTICS_DATABASE_URL"], min_size=1, max_size=1)
    app = Yardstick(pool)
    writer = asyncio.create_task(app.write())
    config = uvicorn.Config(app, port=port, lifespan="off", ws="none", log_level="warning")
    await uvicorn.Server(config).serve()
    writer.cancel()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(int(sys.argv[1])))
