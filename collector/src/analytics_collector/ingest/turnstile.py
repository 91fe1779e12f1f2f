"""Let no project keep the event loop to itself.

To decode and check a body takes the processor for as long as it takes, and a flood of one
project would have dozens of them ready at once, with everybody else behind. So each project may
have about a millisecond's worth in one turn of the loop; the rest of it waits for the next turns.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

# About 1 ms. Whoever is alone loses little, as a turn costs microseconds.
BYTES_PER_TURN: Final = 16 * 1024
# How much larger a gzip body of events is when it is unpacked, before anybody knows.
_INFLATION: Final = 8


class Turnstile:
    """Lets bodies in, in the order of their project."""

    def __init__(self, bytes_per_turn: int = BYTES_PER_TURN) -> None:
        self._bytes_per_turn = bytes_per_turn
        self._used: dict[int, int] = {}
        self._waiting: dict[int, deque[tuple[int, asyncio.Future[None]]]] = {}

    async def enter(self, project_id: int, body: bytes, gzipped: bool) -> None:
        """Return when the project may have *body* decoded, mostly at once."""
        size_bytes = len(body) * _INFLATION if gzipped else len(body)
        if not self._used:
            asyncio.get_running_loop().call_soon(self._next_turn)
        used = self._used.get(project_id, 0)
        if used < self._bytes_per_turn:  # then nothing of the project waits
            self._used[project_id] = used + size_bytes
            return
        let_in = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(project_id, deque()).append((size_bytes, let_in))
        await let_in

    def _next_turn(self) -> None:
        self._used = {}
        for project_id, queue in list(self._waiting.items()):
            used = 0
            while queue and used < self._bytes_per_turn:
                size_bytes, let_in = queue.popleft()
                if not let_in.done():  # else the client has left
                    let_in.set_result(None)
                    used += size_bytes
            self._used[project_id] = used
            if not queue:
                del self._waiting[project_id]
        if self._used:
            asyncio.get_running_loop().call_soon(self._next_turn)
