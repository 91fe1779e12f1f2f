"""Read a request's body: counted as it arrives, never more than allowed, never too many at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from analytics_collector import metrics
from analytics_collector._limits import MAX_BODY_BYTES
from analytics_collector.errors import Refusal

# A client that is refused before its body was read may still be sending it: we read and drop that
# much, that long, so that it gets to see the answer rather than a reset connection.
_DISCARD_BYTES = 2 * MAX_BODY_BYTES
_DISCARD_S = 1.0


class InFlight:
    """The bytes of all bodies that are being read or stored, with a limit.

    One project may have half of them, so that there is room for the others.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._max_of_project = max_bytes // 2
        self._bytes = 0
        self._of_project: dict[int, int] = {}

    @contextmanager
    def share(self, project_id: int) -> Iterator[Share]:
        """Give one request of a project a share that ends with it."""
        share = Share(self, project_id)
        try:
            yield share
        finally:
            self._change(project_id, -share.size_bytes)

    def add(self, project_id: int, size_bytes: int) -> None:
        """Count *size_bytes* of a project; `Refusal` (OVERLOADED) if that is too much."""
        of_project = self._of_project.get(project_id, 0) + size_bytes
        if self._bytes + size_bytes > self._max_bytes or of_project > self._max_of_project:
            raise Refusal("OVERLOADED", headers={"Retry-After": "1"})
        self._change(project_id, size_bytes)

    def _change(self, project_id: int, by: int) -> None:
        self._bytes += by
        of_project = self._of_project.pop(project_id, 0) + by
        if of_project:
            self._of_project[project_id] = of_project
        metrics.BYTES_IN_FLIGHT.set(self._bytes)


class Share:
    """What one request has in flight."""

    def __init__(self, in_flight: InFlight, project_id: int) -> None:
        self._in_flight = in_flight
        self._project_id = project_id
        self.size_bytes = 0

    def grow_to(self, size_bytes: int) -> None:
        """Count up to *size_bytes* for this request."""
        if size_bytes > self.size_bytes:
            self._in_flight.add(self._project_id, size_bytes - self.size_bytes)
            self.size_bytes = size_bytes


class Body:
    """The body of one request, unread at first."""

    def __init__(self, receive: Receive, headers: dict[bytes, bytes]) -> None:
        """*headers* are the request's; the parser has checked that Content-Length is a number."""
        length = headers.get(b"content-length")
        self._receive = receive
        self._declared_bytes = None if length is None else int(length)
        self._ended = False

    async def read(self, share: Share) -> bytes:
        """Return the body. `Refusal` (BODY_TOO_LARGE) as soon as it is known to be too large.

        Raises `ClientDisconnect` if the client left before it had sent all.
        """
        if self._declared_bytes is not None:
            if self._declared_bytes > MAX_BODY_BYTES:
                raise Refusal("BODY_TOO_LARGE")
            share.grow_to(self._declared_bytes)
        chunks: list[bytes] = []
        size_bytes = 0
        while not self._ended:
            chunk = await self._next_chunk()
            size_bytes += len(chunk)
            if size_bytes > MAX_BODY_BYTES:
                raise Refusal("BODY_TOO_LARGE")
            share.grow_to(size_bytes)
            chunks.append(chunk)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def discard(self) -> bool:
        """Read and drop what is left, within bounds; return whether it came to its end."""
        if not self._ended and (self._declared_bytes or 0) > _DISCARD_BYTES:
            return False
        dropped = 0
        try:
            async with asyncio.timeout(_DISCARD_S):
                while not self._ended and dropped <= _DISCARD_BYTES:
                    dropped += len(await self._next_chunk())
        except (TimeoutError, ClientDisconnect):
            return False
        return self._ended

    async def _next_chunk(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        self._ended = not message.get("more_body", False)
        chunk: bytes = message.get("body", b"")
        return chunk
