"""The stage that attaches sessions, with stores that are near, far, forgetful or away."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest

from analytics_collector.errors import StoreUnavailable
from analytics_collector.ingest.sessions import PATIENCE_S, Sessions
from analytics_collector.ingest.validate import validate
from analytics_collector.interfaces import SessionsUnavailable, StreamTimes
from analytics_collector.model import RawBatch, ValidBatch
from analytics_collector.spans import Span, Spans, merge, place

MINUTE_MS = 60_000
TEN = int(datetime(2026, 11, 26, 10, 0, tzinfo=UTC).timestamp() * 1000)


class MemoryStore:
    """Implements `interfaces.SessionStore` in the memory of one process."""

    def __init__(self) -> None:
        self.streams: dict[tuple[int, str], Spans] = {}
        self.calls = 0
        self.is_away = False
        self.is_new = False
        self.fault: Exception | None = None
        self.delay_s = 0.0

    async def place(
        self, project_id: int, wanted: Sequence[StreamTimes], must_know: bool
    ) -> list[Spans | None]:
        self.calls += 1
        await asyncio.sleep(self.delay_s)
        if self.is_away:
            raise SessionsUnavailable("away")
        if self.fault is not None and not must_know:
            raise self.fault
        return [self._place((project_id, ask.stream), ask, must_know) for ask in wanted]

    def _place(self, key: tuple[int, str], ask: StreamTimes, must_know: bool) -> Spans | None:
        if self.is_new and must_know and key not in self.streams:
            return None
        spans = self.streams.setdefault(key, [])
        merge(spans, ask.known)
        for at in ask.times:
            place(spans, at)
        return [Span(span.origin, span.first, span.last) for span in spans]


class History:
    """Implements `interfaces.SessionHistory` with what a test tells it."""

    def __init__(self) -> None:
        self.sessions: dict[str, Spans] = {}
        self.is_away = False
        self.delay_s = 0.0

    async def sessions_near(self, project_id: int, wanted: Sequence[StreamTimes]) -> list[Spans]:
        await asyncio.sleep(self.delay_s)
        if self.is_away:
            raise StoreUnavailable("away")
        return [self.sessions.get(ask.stream, []) for ask in wanted]


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def history() -> History:
    return History()


@pytest.fixture
def sessions(store: MemoryStore, history: History) -> Sessions:
    return Sessions(store, history)


def batch(*events: dict[str, Any]) -> ValidBatch:
    """Return a batch of events; `minute` is after ten o'clock."""
    whole = []
    for event in events:
        hour, minute = divmod(600 + event.pop("minute", 0), 60)
        at = f"2026-11-26T{hour:02}:{minute:02}:00Z"
        common = {"type": "track", "name": "e", "messageId": str(uuid4()), "timestamp": at}
        whole.append({**common, **event})
    return validate(RawBatch(whole, None, exact=False), 1, datetime.now(UTC))


def attach(sessions: Sessions, run: Any, *events: dict[str, Any]) -> list[str | None]:
    return [row.session_id for row in run(sessions.attach(batch(*events))).rows]


def visits(*minutes: int, name: str = "x") -> list[dict[str, Any]]:
    return [{"anonymousId": name, "minute": minute} for minute in minutes]


def test_events_without_a_session_get_one(sessions, run):
    """One for all events of a visitor until half an hour of silence."""
    first, second, third = attach(sessions, run, *visits(0, 25, 80))

    assert first == second
    assert first is not None
    assert third not in (first, None)


def test_one_can_tell_that_the_collector_attached_it(sessions, run):
    """And when the session began; what else was worked out stays."""
    given = batch({"userId": "u"}, {"userId": "u"})
    given.rows[1] = given.rows[1]._replace(enrichment='{"geo":{"country":"GB"}}')
    bare, enriched = [json.loads(row.enrichment) for row in run(sessions.attach(given)).rows]

    assert bare == {"session": {"source": "server", "start": "2026-11-26T10:00:00.000Z"}}
    assert enriched == {"geo": {"country": "GB"}, **bare}


def test_what_the_client_says_stays(sessions, store, run):
    """A session of the client's own, and an event of nobody's."""
    rows = run(sessions.attach(batch({"userId": "u", "sessionId": "mine"}, {}))).rows

    assert [(row.session_id, row.enrichment) for row in rows] == [("mine", None), (None, None)]
    assert store.calls == 0


def test_two_devices_of_a_user_are_two_sessions(sessions, run):
    """The device counts where it is known, and else the user."""
    phone, laptop, server = attach(
        sessions,
        run,
        {"userId": "u", "anonymousId": "phone"},
        {"userId": "u", "anonymousId": "laptop"},
        {"userId": "u"},
    )

    assert len({phone, laptop, server}) == 3


def test_processes_agree(store, history, run):
    """They share what they know, and make the same id of it."""
    here, there = Sessions(store, history), Sessions(store, history)
    (first,) = attach(here, run, *visits(0))

    assert attach(there, run, *visits(20)) == [first]


def test_a_session_that_is_known_needs_no_question(sessions, store, run):
    """One call for all streams of a batch that are not; then none."""
    attach(sessions, run, *visits(0, 1, name="x"), *visits(0, 1, name="y"))
    assert store.calls == 1
    attach(sessions, run, *visits(2, 20, 40, name="x"), *visits(3, name="y"))

    assert store.calls == 1


def test_the_others_learn_how_far_a_session_has_grown(store, history, run):
    """Else they would see it end while it goes on here."""
    here, there = Sessions(store, history), Sessions(store, history)
    (first,) = attach(here, run, *visits(0))
    attach(here, run, *visits(25, 50))
    run(here.tell())

    assert attach(there, run, *visits(75)) == [first]


def test_what_was_not_told_is_told_at_the_end(store, history, run):
    """A process that stops leaves nothing behind."""

    async def live() -> None:
        sessions = Sessions(store, history)
        sessions.start()
        await sessions.attach(batch(*visits(0)))
        await sessions.attach(batch(*visits(25)))
        await sessions.stop()

    run(live())

    assert store.streams[1, "ax"][0].last == TEN + 25 * MINUTE_MS


def test_without_redis_a_process_goes_by_what_it_knows(sessions, store, run):
    """And tells it later."""
    (first,) = attach(sessions, run, *visits(0))
    store.is_away = True
    assert attach(sessions, run, *visits(20)) == [first]
    (other,) = attach(sessions, run, *visits(5, name="y"))
    assert other is not None
    run(sessions.tell())
    store.is_away = False
    run(sessions.tell())

    assert store.streams[1, "ax"][0].last == TEN + 20 * MINUTE_MS
    assert store.streams[1, "ay"][0].origin == TEN + 5 * MINUTE_MS


def test_a_redis_that_hangs_delays_one_batch_a_little_and_the_next_not_at_all(store, history, run):
    """Events matter more than their sessions."""
    now = 0.0
    sessions = Sessions(store, history, clock=lambda: now)
    store.delay_s = 60.0
    started = time.perf_counter()
    assert attach(sessions, run, *visits(0)) != [None]
    assert time.perf_counter() - started < 10 * PATIENCE_S
    for name in "abc":
        attach(sessions, run, *visits(0, name=name))
    assert store.calls == 1
    store.delay_s, now = 0.0, 2.0
    attach(sessions, run, *visits(0, name="d"))

    assert store.calls == 2


def test_a_redis_that_lost_its_memory_is_told_what_was_stored(sessions, store, history, run):
    """A session goes on under its name, though nobody but the events remembers it."""
    store.is_new = True
    history.sessions["ax"] = [Span(TEN - 40 * MINUTE_MS, TEN - 40 * MINUTE_MS, TEN)]
    row = run(sessions.attach(batch(*visits(10)))).rows[0]

    assert json.loads(row.enrichment)["session"]["start"] == "2026-11-26T09:20:00.000Z"
    assert store.streams[1, "ax"][0].last == TEN + 10 * MINUTE_MS


@pytest.mark.parametrize("fault", ["away", "slow"])
def test_without_a_history_a_session_begins_anew(sessions, store, history, run, fault):
    """Rather than that an event waits for it."""
    store.is_new = True
    history.is_away, history.delay_s = fault == "away", 60.0 if fault == "slow" else 0.0
    row = run(sessions.attach(batch(*visits(10)))).rows[0]

    assert json.loads(row.enrichment)["session"]["start"] == "2026-11-26T10:10:00.000Z"


def test_memory_is_bounded(store, history, run):
    """However many visitors come, what is known of them is not kept for ever."""
    sessions = Sessions(store, history, max_streams=10)
    for number in range(50):
        attach(sessions, run, *visits(0, name=str(number)))

    assert sessions.known_streams == 10


def test_memory_of_what_was_not_told_is_bounded(store, history, run):
    """Also while nothing empties it."""
    sessions = Sessions(store, history, max_streams=10)
    store.is_away = True
    for number in range(50):
        attach(sessions, run, *visits(0, name=str(number)))

    store.is_away = False
    run(sessions.tell())
    assert len(store.streams) == 10


def test_a_fault_while_telling_does_not_end_it(store, history, run, caplog):
    """A session that goes on behind it is told of."""

    async def live() -> None:
        sessions = Sessions(store, history, tell_every_s=0.01)
        sessions.start()
        await sessions.attach(batch(*visits(0)))
        store.fault = ValueError("ours")
        await sessions.attach(batch(*visits(10)))
        async with asyncio.timeout(5):
            while "failed unexpectedly" not in caplog.text:
                await asyncio.sleep(0.005)
        store.fault = None
        await sessions.attach(batch(*visits(25)))
        async with asyncio.timeout(5):
            while store.streams[1, "ax"][0].last != TEN + 25 * MINUTE_MS:
                await asyncio.sleep(0.005)
        await sessions.stop()

    run(live())
