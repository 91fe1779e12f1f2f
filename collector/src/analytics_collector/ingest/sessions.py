"""Attach a session to events that name none.

The events of one device are a stream: those of an `anonymousId`, or of a `userId` where there is
no other. What sessions a stream has is known to this process, shared with the others through a
store, and found again in the history of events when the store lost its memory. An event that lies
in a session known here needs no question: sessions only grow, and the store is told of it later.
Ingest never waits long for a session: a store that does not answer at once is left alone for a
while, and this process goes by what it knows itself.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import lru_cache
from itertools import islice
from typing import Final
from uuid import UUID, uuid5

from analytics_collector import metrics
from analytics_collector.background import Rounds
from analytics_collector.errors import StoreUnavailable
from analytics_collector.interfaces import (
    SessionHistory,
    SessionStore,
    SessionsUnavailable,
    StreamTimes,
)
from analytics_collector.model import EventRow, ValidBatch
from analytics_collector.spans import Spans, find, merge, place

logger = logging.getLogger(__name__)

# What a batch waits at most for the store and, seldom, for the history.
PATIENCE_S: Final = 0.05
_HISTORY_PATIENCE_S: Final = 0.02
_PAUSE_S: Final = 1.0
# How much later than here the others may learn that a session goes on.
_TELL_EVERY_S: Final = 10.0
_TELL_PATIENCE_S: Final = 1.0
_TOLD_AT_ONCE: Final = 200
_MAX_STREAMS: Final = 50_000

_NAMESPACE: Final = UUID("0ad7f0b4-3c5b-5d0e-9b0e-5f6f1c1b7a55")
_SESSION: Final = EventRow._fields.index("session_id")
_ENRICHMENT: Final = EventRow._fields.index("enrichment")

_Stream = tuple[int, str]
"""A project, and the name of a stream in it."""


class Sessions:
    """The stage. Knows up to 50,000 streams, and asks for those that it does not know."""

    def __init__(
        self,
        store: SessionStore,
        history: SessionHistory,
        clock: Callable[[], float] = time.monotonic,
        max_streams: int = _MAX_STREAMS,
        tell_every_s: float = _TELL_EVERY_S,
    ) -> None:
        self._max_streams = max_streams
        self._store = store
        self._history = history
        self._clock = clock
        self._streams: dict[_Stream, Spans] = {}
        self._untold: dict[_Stream, Spans] = {}
        self._ask_store_at = 0.0
        self._ask_history_at = 0.0
        rounds = Rounds("sessions", self.tell, tell_every_s)
        self.start, self.stop = rounds.start, rounds.stop

    @property
    def known_streams(self) -> int:
        """Return how many streams are remembered here."""
        return len(self._streams)

    async def attach(self, batch: ValidBatch) -> ValidBatch:
        """Return *batch*, all of one project, with a session for each event of somebody."""
        rows = batch.rows.copy()
        unknown: dict[str, list[int]] = {}
        later = []
        for position, row in enumerate(rows):
            stream = _stream_of(row)
            if stream is None:
                continue
            at = _milliseconds(row.timestamp)
            spans = self._streams.get((row.project_id, stream))
            if spans is None or find(spans, at) is None:
                unknown.setdefault(stream, []).append(at)
                later.append((position, stream, at))
            else:
                rows[position] = self._with_session(row, stream, spans, at)
        if unknown:
            await self._learn(batch.rows[0].project_id, unknown)
        for position, stream, at in later:
            row = rows[position]
            spans = self._spans((row.project_id, stream))
            rows[position] = self._with_session(row, stream, spans, at)
        return ValidBatch(rows, batch.indexes, batch.events, batch.rejected)

    def _with_session(self, row: EventRow, stream: str, spans: Spans, at: int) -> EventRow:
        span = find(spans, at)
        if span is None or not span.first <= at <= span.last:
            span = place(spans, at)
            self._tell_later((row.project_id, stream), spans)
        session_id, facts = _session(row.project_id, stream, span.origin)
        enrichment = row.enrichment
        text = f"{{{facts}}}" if enrichment is None else f"{enrichment[:-1]},{facts}}}"
        return EventRow._make((*row[:_SESSION], session_id, *row[_SESSION + 1 : _ENRICHMENT], text))

    def _tell_later(self, stream: _Stream, spans: Spans) -> None:
        """Note that the store does not know *spans* yet; without room it learns of them later."""
        if len(self._untold) < self._max_streams or stream in self._untold:
            self._untold[stream] = spans

    def _spans(self, stream: _Stream) -> Spans:
        """Return what is known of *stream*, to be added to."""
        spans = self._streams.get(stream)
        if spans is None:
            if len(self._streams) >= self._max_streams:
                del self._streams[next(iter(self._streams))]
            spans = self._streams[stream] = []
        return spans

    async def _learn(self, project_id: int, unknown: dict[str, list[int]]) -> None:
        """Ask the store for the sessions of *unknown* streams, by their times; it may add some."""
        wanted = [StreamTimes(stream, times, []) for stream, times in unknown.items()]
        if self._clock() < self._ask_store_at:
            metrics.SESSIONS_ALONE.inc(len(wanted))
            return
        try:
            async with asyncio.timeout(PATIENCE_S):
                answers = await self._ask(project_id, wanted)
        except (SessionsUnavailable, TimeoutError) as exc:
            self._ask_store_at = self._clock() + _PAUSE_S
            metrics.SESSIONS_ALONE.inc(len(wanted))
            logger.warning("Sessions not shared for now", extra={"reason": type(exc).__name__})
            return
        for stream, spans in answers.items():
            merge(self._spans((project_id, stream)), spans)

    async def _ask(self, project_id: int, wanted: list[StreamTimes]) -> dict[str, Spans]:
        placed = await self._store.place(project_id, wanted, must_know=True)
        answers = dict(zip((ask.stream for ask in wanted), placed, strict=True))
        forgotten = [ask for ask in wanted if answers[ask.stream] is None]
        if forgotten:
            remembered = await self._remember(project_id, forgotten)
            placed = await self._store.place(project_id, remembered, must_know=False)
            answers.update(zip((ask.stream for ask in remembered), placed, strict=True))
        return {stream: spans for stream, spans in answers.items() if spans is not None}

    async def _remember(self, project_id: int, forgotten: list[StreamTimes]) -> list[StreamTimes]:
        """Return *forgotten* with what the history of events knows, if it answers at once."""
        if self._clock() < self._ask_history_at:
            return forgotten
        try:
            async with asyncio.timeout(_HISTORY_PATIENCE_S):
                found = await self._history.sessions_near(project_id, forgotten)
        except (StoreUnavailable, TimeoutError):
            self._ask_history_at = self._clock() + _PAUSE_S
            metrics.SESSIONS_FORGOTTEN.inc(len(forgotten))
            return forgotten
        return [ask._replace(known=spans) for ask, spans in zip(forgotten, found, strict=True)]

    async def tell(self) -> None:
        """Tell the store how far sessions have grown here; what it does not take waits."""
        untold, self._untold = self._untold, {}
        for project_id, streams in _by_project(untold):
            known = [StreamTimes(stream, [], untold[project_id, stream]) for stream in streams]
            try:
                async with asyncio.timeout(_TELL_PATIENCE_S):
                    await self._store.place(project_id, known, must_know=False)
            except (SessionsUnavailable, TimeoutError):
                self._untold = dict(islice((untold | self._untold).items(), self._max_streams))
                return


def _by_project(streams: dict[_Stream, Spans]) -> Iterator[tuple[int, list[str]]]:
    """Yield the names of *streams* by their project, a call's worth at a time."""
    projects: dict[int, list[str]] = {}
    for project_id, stream in streams:
        projects.setdefault(project_id, []).append(stream)
    for project_id, names in projects.items():
        for start in range(0, len(names), _TOLD_AT_ONCE):
            yield project_id, names[start : start + _TOLD_AT_ONCE]


def _stream_of(row: EventRow) -> str | None:
    """Return the stream of an event that needs a session; None if it has one, or is nobody's."""
    if row.session_id is not None:
        return None
    if row.anonymous_id is not None:
        return "a" + row.anonymous_id
    return None if row.user_id is None else "u" + row.user_id


def _milliseconds(at: datetime) -> int:
    return int(at.timestamp() * 1000)


@lru_cache(maxsize=16384)
def _session(project_id: int, stream: str, origin: int) -> tuple[str, str]:
    """Return the id of a session, the same in every process, and its JSON member."""
    session_id = uuid5(_NAMESPACE, f"{project_id} {stream} {origin}")
    start = datetime.fromtimestamp(origin / 1000, UTC).isoformat(timespec="milliseconds")
    member = f'"session":{{"source":"server","start":"{start[:23]}Z"}}'
    return str(session_id), member
