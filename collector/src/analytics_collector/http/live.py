"""The live tail over HTTP: GET /api/v1/live, as server-sent events."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from importlib.resources import files
from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from analytics_collector import metrics
from analytics_collector.errors import InvalidQuery, Refusal, StoreUnavailable
from analytics_collector.http.auth import authorize
from analytics_collector.live import (
    Listener,
    LiveTail,
    Position,
    Selection,
    Told,
    TooManyListeners,
)

_SCHEMA = orjson.loads(files("analytics_collector").joinpath("_spec/event.json").read_bytes())
_TYPES: Final[list[str]] = _SCHEMA["properties"]["type"]["enum"]

HEARTBEAT_S: Final = 15.0
# How soon a key that was revoked stops hearing, beside the time that it is remembered.
_KEY_CHECK_S: Final = 1.0
_RETRY_MS: Final = 1_000
_PLACES_RETRY_S: Final = 5
_MAX_CHUNK_BYTES: Final = 64 * 1024
_MAX_VALUES: Final = 100
_FILTERS: Final = ("name", "type", "userId")
_HEADERS: Final = {
    "Cache-Control": "no-store, no-transform",
    # nginx hands on what it gets at once, whatever its configuration says.
    "X-Accel-Buffering": "no",
}
_END_MESSAGES: Final = {
    "slow": "You did not read as fast as events came; come back with Last-Event-ID.",
    "shutdown": "This server stops; come back with Last-Event-ID.",
    "key": "The key is no longer valid.",
    "interrupted": "Events can't be read at the moment; come back with Last-Event-ID.",
}


async def live(request: Request) -> Response:
    """GET /api/v1/live?name=&type=&userId=: each event as it is committed, until either side ends.

    With `Last-Event-ID` what was committed since comes first.
    """
    key = await authorize(request, "read")
    selection = _read_selection(request, key.project_id)
    since = _read_since(request)
    if request.method == "HEAD":
        return Response(headers=_HEADERS, media_type="text/event-stream")
    tail: LiveTail = request.app.state.services.live
    try:
        listener = tail.admit(selection)
    except TooManyListeners:
        headers = {"Retry-After": str(_PLACES_RETRY_S)}
        raise Refusal("TOO_MANY_LISTENERS", headers=headers) from None
    try:
        start = Position(await tail.start())
        found = start if since is None else await tail.locate(since)
    except BaseException:
        # The last one who leaves ends the reading, which may have begun.
        tail.leave(listener)
        raise
    return _Stream(_Feed(request, tail, listener).run(found, start), tail, listener)


class _Stream(StreamingResponse):
    """Gives the place back as soon as nobody listens any more."""

    def __init__(
        self, feed: AsyncGenerator[bytes, None], tail: LiveTail, listener: Listener
    ) -> None:
        super().__init__(feed, headers=_HEADERS, media_type="text/event-stream")
        self._feed = feed
        self._tail = tail
        self._listener = listener

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._tail.leave(self._listener)
            await self._feed.aclose()


class _Feed:
    """What one listener is sent."""

    def __init__(self, request: Request, tail: LiveTail, listener: Listener) -> None:
        self._request = request
        self._tail = tail
        self._listener = listener
        self._beat_at = time.monotonic() + HEARTBEAT_S
        self._checked_at = time.monotonic()

    async def run(self, since: Position | None, start: Position) -> AsyncGenerator[bytes, None]:
        """Yield the stream: from *since* on, or with word of a gap from *start*."""
        yield b"retry: %d\n" % _RETRY_MS
        if since is None:
            yield _message("gap", {"message": "The id is of no event that is still known."})
        # An id without data: who is cut off before the first event has where to go on, too.
        yield b"id: %s\n\n" % str(since or start).encode()
        try:
            async for told in self._tail.catch_up(self._listener, since or start):
                for chunk in _chunks(told):
                    yield chunk
                if not told and self._beat_is_due():
                    yield b": catching up\n\n"
                await self._check_key()
                if self._listener.end_reason is not None:
                    break
        except StoreUnavailable:
            self._listener.end("interrupted")
        while self._listener.end_reason is None:
            for chunk in _chunks(await self._listener.take(_KEY_CHECK_S)):
                yield chunk
            await self._check_key()
            if self._beat_is_due() and not self._listener.is_waiting:
                position = self._tail.position(self._listener)
                yield b": still here\nid: %s\n\n" % str(position).encode()
        for chunk in _chunks(await self._listener.take(0)):
            yield chunk
        reason = self._listener.end_reason
        yield _message("end", {"reason": reason, "message": _END_MESSAGES[reason]})

    def _beat_is_due(self) -> bool:
        now = time.monotonic()
        if now < self._beat_at:
            return False
        self._beat_at = now + HEARTBEAT_S
        return True

    async def _check_key(self) -> None:
        """End the listener if its key may not hear any more; while nobody can tell, it may."""
        now = time.monotonic()
        if now < self._checked_at + _KEY_CHECK_S:
            return
        self._checked_at = now
        try:
            await authorize(self._request, "read", is_use=False)
        except Refusal:
            self._listener.end("key")
        except StoreUnavailable:
            pass


def _chunks(told: list[Told]) -> list[bytes]:
    """Return the events as they are sent, in pieces that a connection takes at once."""
    metrics.LIVE_EVENTS.inc(len(told))
    chunks: list[bytes] = []
    chunk = bytearray()
    for position, data in told:
        chunk += b"id: %s\ndata: %s\n\n" % (str(position).encode(), data)
        if len(chunk) > _MAX_CHUNK_BYTES:
            chunks.append(bytes(chunk))
            chunk.clear()
    return [*chunks, bytes(chunk)] if chunk else chunks


def _message(kind: str, content: dict[str, Any]) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), orjson.dumps(content))


def _read_selection(request: Request, project_id: int) -> Selection:
    asked = request.query_params
    for name in asked:
        if name not in _FILTERS:
            raise InvalidQuery(name, f"is not known here; there are {', '.join(_FILTERS)}")
    names, types, user_ids = (frozenset(asked.getlist(name)) for name in _FILTERS)
    for name, values in zip(_FILTERS, (names, types, user_ids), strict=True):
        if len(values) > _MAX_VALUES:
            raise InvalidQuery(name, f"may be given at most {_MAX_VALUES} times")
    if unknown := types - set(_TYPES):
        raise InvalidQuery("type", f"must be one of {', '.join(_TYPES)}, not {min(unknown)!r}")
    return Selection(project_id, names, types, user_ids)


def _read_since(request: Request) -> Position | None:
    text = request.headers.get("last-event-id")
    if not text:
        return None
    try:
        return Position.parse(text)
    except ValueError as exc:
        raise InvalidQuery("Last-Event-ID", str(exc)) from exc
