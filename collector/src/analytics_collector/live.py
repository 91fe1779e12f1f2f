"""The live tail: what is committed, handed to those who listen, in the order of the log.

One reader a process follows the stream in Redis, and the log in Postgres wherever the stream has
nothing, has a gap or is away. It pulls at its own pace and never waits for a listener: each has a
bounded buffer, and one that does not keep up is ended and told so. It comes back with the id of
the last event that it had, and is brought up from the log.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple, Protocol

import orjson

from analytics_collector import metrics
from analytics_collector.errors import StoreUnavailable
from analytics_collector.model import Cursor, Entry
from analytics_collector.wire import wire_time

logger = logging.getLogger(__name__)

MAX_BUFFER_BYTES: Final = 1024 * 1024
_COMMITS_AT_ONCE: Final = 8
# A turn for those who send what they were handed, and for everybody else in this process.
_TURN_BYTES: Final = 64 * 1024
_POLL_S: Final = 0.2
_RETRY_S: Final = 1.0
_CATCH_UPS_AT_ONCE: Final = 2
# Events of one project may not take the places of all others.
_SHARE_OF_A_PROJECT: Final = 0.5


class Position(NamedTuple):
    """A place in the tail: the events of a commit up to `seq`, or all of them if that is None."""

    cursor: Cursor
    seq: int | None = None

    @classmethod
    def parse(cls, text: str) -> Position:
        """Return the position that `str()` wrote. Raises `ValueError`."""
        numbers = [int(part) for part in text.split("-") if part.isascii() and part.isdecimal()]
        if len(numbers) not in (2, 3) or text.count("-") != len(numbers) - 1:
            raise ValueError("is not an id of this stream")
        if max(numbers) >= 2**63:
            raise ValueError("is not an id of this stream")
        return cls(Cursor(*numbers[:2]), numbers[2] if len(numbers) == 3 else None)

    def __str__(self) -> str:
        """Return the position as the id of an event."""
        return str(self.cursor) if self.seq is None else f"{self.cursor}-{self.seq}"


@dataclass(frozen=True, slots=True)
class Selection:
    """Which events of a project a listener wants; what is empty selects nothing away."""

    project_id: int
    names: frozenset[str] = frozenset()
    types: frozenset[str] = frozenset()
    user_ids: frozenset[str] = frozenset()

    def takes(self, event: dict[str, Any]) -> bool:
        """Return whether *event*, as the log has it, is among them."""
        return (
            event["projectId"] == self.project_id
            and (not self.names or event["name"] in self.names)
            and (not self.types or event["type"] in self.types)
            and (not self.user_ids or event["userId"] in self.user_ids)
        )


class LiveStream(Protocol):
    """The fast copy of the log."""

    async def after(self, cursor: Cursor) -> list[Entry] | None:
        """Return the next entries, waiting a moment for the first; None if it did not wait.

        That is if it is away, or has nothing but what others put into it.
        """
        ...


class LiveLog(Protocol):
    """The log itself. Every method raises `StoreUnavailable`."""

    async def latest(self) -> Cursor:
        """Return the last commit that nothing in progress can precede."""
        ...

    async def find(self, cursor: Cursor) -> Cursor | None:
        """Return where the commit at *cursor* is now, None if the log does not have it."""
        ...

    async def after(
        self, cursor: Cursor, limit: int, project_id: int | None = None, *, inclusive: bool = False
    ) -> list[Entry]:
        """Return up to *limit* commits behind *cursor*, with the events of one project or all.

        With *inclusive* the one at *cursor* comes first.
        """
        ...


class Told(NamedTuple):
    """One event for a listener: its place, and itself as JSON."""

    position: Position
    data: bytes


# What the log has of an event for its followers, and its reader has no use for.
_INTERNAL: Final = ("projectId", "seq")
_TIMES: Final = ("timestamp", "receivedAt", "clientTimestamp")


class Listener:
    """One who listens, with what waits for them."""

    def __init__(self, selection: Selection) -> None:
        self.selection = selection
        self.end_reason: str | None = None
        self._waiting: deque[Told] = deque()
        self._waiting_bytes = 0
        self._something = asyncio.Event()

    @property
    def is_waiting(self) -> bool:
        """Whether something waits for the listener to take it."""
        return bool(self._waiting)

    def offer(self, told: Told) -> None:
        """Let *told* wait for the listener; end one who has not taken what waits already."""
        if self.end_reason is not None:
            return
        self._waiting_bytes += len(told.data)
        if self._waiting_bytes > MAX_BUFFER_BYTES:
            # What waits is let go: by the id of the last event they had, they get it again.
            self._waiting.clear()
            self.end("slow")
            return
        self._waiting.append(told)
        self._something.set()

    def end(self, reason: str) -> None:
        """Let nothing more come, for *reason*; what waits is still taken."""
        if self.end_reason is None:
            self.end_reason = reason
            metrics.LIVE_ENDED.labels(reason).inc()
        self._something.set()

    async def take(self, timeout_s: float) -> list[Told]:
        """Return what waits, or what comes first within *timeout_s* seconds, or nothing."""
        if not self._waiting and self.end_reason is None:
            self._something.clear()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._something.wait()
            except TimeoutError:
                return []
        taken = list(self._waiting)
        self._waiting.clear()
        self._waiting_bytes = 0
        return taken


class TooManyListeners(Exception):
    """All places of this process, or those of one project, are taken."""


class LiveTail:
    """Hands each commit to everybody who listens to its project."""

    def __init__(self, stream: LiveStream, log: LiveLog, max_listeners: int) -> None:
        self._stream = stream
        self._log = log
        self._max_listeners = max_listeners
        self._max_of_project = max(1, int(max_listeners * _SHARE_OF_A_PROJECT))
        self._admitted: list[Listener] = []
        # Who is handed what is read, and behind which commit that begins for them.
        self._joined: dict[Listener, Cursor] = {}
        # The commit that is being handed out, and the last one that is handed out whole.
        self._cursor = self._done = Cursor(0, 0)
        self._reader: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()
        self._catching_up = asyncio.Semaphore(_CATCH_UPS_AT_ONCE)
        self._stopped = False

    def admit(self, selection: Selection) -> Listener:
        """Return a place for one who will listen. Raises `TooManyListeners`."""
        of_project = sum(
            other.selection.project_id == selection.project_id for other in self._admitted
        )
        if len(self._admitted) >= self._max_listeners or of_project >= self._max_of_project:
            raise TooManyListeners
        listener = Listener(selection)
        if self._stopped:
            listener.end("shutdown")
        self._admitted.append(listener)
        metrics.LIVE_LISTENERS.set(len(self._admitted))
        return listener

    async def start(self) -> Cursor:
        """Read, unless somebody does already; return how far. Raises `StoreUnavailable`."""
        async with self._starting:
            if self._reader is None:
                self._cursor = self._done = await self._log.latest()
                self._reader = asyncio.create_task(self._read())
                self._reader.add_done_callback(self._on_read_end)
            return self._cursor

    async def locate(self, position: Position) -> Position | None:
        """Return where *position* is now, None if the log does not have it.

        Raises `StoreUnavailable`.
        """
        if position.cursor == Cursor(0, 0):
            return position
        found = await self._log.find(position.cursor)
        return None if found is None else Position(found, position.seq)

    async def catch_up(self, listener: Listener, since: Position) -> AsyncIterator[list[Told]]:
        """Yield what lies between *since* and what is handed out; then the listener has joined.

        An empty list tells only that it goes on. Raises `StoreUnavailable`.
        """
        cursor, seq = since
        while seq is not None or cursor < await self.start():
            async with self._catching_up:
                entries = await self._log.after(
                    cursor,
                    _COMMITS_AT_ONCE,
                    listener.selection.project_id,
                    inclusive=seq is not None,
                )
            for entry in entries:
                had = seq if seq is not None and entry.cursor == since.cursor else -1
                cursor = entry.cursor
                yield _chosen(listener.selection, entry, had)
            seq = None
            if not entries:  # ahead of the log, which was set back under us
                yield []
                await asyncio.sleep(_POLL_S)
        # No turn of anybody else's lies between this and the comparison.
        self._joined[listener] = cursor

    def position(self, listener: Listener) -> Position | None:
        """Return how far a listener for whom nothing waits has heard; None before it joined."""
        since = self._joined.get(listener)
        return None if since is None else Position(max(since, self._done))

    def leave(self, listener: Listener) -> None:
        """Give the place back; the last one who leaves ends the reading."""
        self._admitted.remove(listener)
        metrics.LIVE_LISTENERS.set(len(self._admitted))
        self._joined.pop(listener, None)
        if not self._admitted and self._reader is not None:
            self._reader.cancel()
            self._reader = None

    def stop(self) -> None:
        """End everybody, and whoever comes later, since this process stops."""
        self._stopped = True
        for listener in self._admitted:
            listener.end("shutdown")

    async def _read(self) -> None:
        this = asyncio.current_task()
        while self._reader is this:
            try:
                entries = await self._next_entries(self._cursor)
            except StoreUnavailable as exc:
                logger.warning("Live tail waits for Postgres", extra={"reason": str(exc)})
                await asyncio.sleep(_RETRY_S)
                continue
            for entry in entries:
                if self._reader is not this or entry.previous != self._cursor:
                    break
                await self._hand_out(entry)

    async def _next_entries(self, cursor: Cursor) -> list[Entry]:
        entries = await self._stream.after(cursor)
        if entries and entries[0].previous == cursor:
            return entries
        # The stream is away, has a gap, is of another log, or has nothing new: then there may be
        # no worker that fills it. Only for something new it has waited itself.
        from_log = await self._log.after(cursor, _COMMITS_AT_ONCE)
        if not from_log and entries != []:
            await asyncio.sleep(_POLL_S)
        return from_log

    async def _hand_out(self, entry: Entry) -> None:
        # Whoever joins from here on gets this commit from the log.
        self._cursor = entry.cursor
        listeners = [who for who, since in self._joined.items() if since < entry.cursor]
        since_turn = 0
        for event in _of_interest(listeners, entry):
            told = None
            for listener in listeners:
                if listener.selection.takes(event):
                    told = told or _told(entry.cursor, event)
                    listener.offer(told)
            since_turn += 0 if told is None else len(told.data)
            if since_turn > _TURN_BYTES:
                since_turn = 0
                await asyncio.sleep(0)
        self._done = entry.cursor
        await asyncio.sleep(0)

    def _on_read_end(self, reader: asyncio.Task[None]) -> None:
        if reader.cancelled() or reader.exception() is None:
            return
        logger.error("Live tail failed", exc_info=reader.exception())
        if self._reader is reader:
            self._reader = None
        for listener in self._admitted:
            listener.end("interrupted")


def _of_interest(listeners: list[Listener], entry: Entry) -> list[dict[str, Any]]:
    """Return the events of *entry*; none if it has no event of the projects of *listeners*.

    Such a commit is not even decoded: the mark is as Postgres writes it.
    """
    projects = {listener.selection.project_id for listener in listeners}
    if not any(f'"projectId" : {project},' in entry.events for project in projects):
        return []
    events: list[dict[str, Any]] = orjson.loads(entry.events)
    return events


def _chosen(selection: Selection, entry: Entry, had_seq: int) -> list[Told]:
    return [
        _told(entry.cursor, event)
        for event in orjson.loads(entry.events)
        if event["seq"] > had_seq and selection.takes(event)
    ]


def _told(cursor: Cursor, event: dict[str, Any]) -> Told:
    answered = {name: value for name, value in event.items() if name not in _INTERNAL}
    for name in _TIMES:
        if answered[name] is not None:
            answered[name] = wire_time(datetime.fromisoformat(answered[name]))
    return Told(Position(cursor, event["seq"]), orjson.dumps(answered))
