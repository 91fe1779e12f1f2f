"""Sessions in Redis, and those that stored events tell of."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from analytics_collector.adapters.postgres.sessions import PostgresSessionHistory
from analytics_collector.adapters.postgres.store import PostgresEventStore
from analytics_collector.adapters.redis.client import connect
from analytics_collector.adapters.redis.sessions import RedisSessionStore
from analytics_collector.interfaces import SessionsUnavailable, StreamTimes
from analytics_collector.spans import CAP_MS, GAP_MS, Span, place

NOON = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)
NOON_MS = int(NOON.timestamp() * 1000)


@pytest.fixture
def redis(valkey_url: str, run: Callable) -> Iterator[Redis]:
    """Return a client of a Valkey with nothing in it."""
    client = connect(valkey_url)
    run(client.flushdb())
    yield client
    run(client.aclose())


@given(
    st.lists(
        st.lists(st.integers(NOON_MS, NOON_MS + 30 * GAP_MS), max_size=5), min_size=1, max_size=6
    ),
    st.lists(st.integers(NOON_MS, NOON_MS + 2 * CAP_MS), max_size=3),
)
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_redis_goes_by_the_same_rule(redis, run, calls, known):
    """What the script decides is what `spans` decides, call after call."""
    store = RedisSessionStore(redis)
    stream = f"a{uuid4()}"
    expected: list[Span] = []
    for at in known:
        place(expected, at)
    told = [Span(*(span.origin, span.first, span.last)) for span in expected]
    run(store.place(1, [StreamTimes(stream, [], told)], must_know=False))
    for times in calls:
        (found,) = run(store.place(1, [StreamTimes(stream, times, [])], must_know=False))
        for at in times:
            place(expected, at)

        assert found == expected


def test_redis_ends_a_session_after_a_day_too(redis, run):
    """Exactly a day still belongs to it, however busy it was."""
    times = [*range(NOON_MS, NOON_MS + CAP_MS + 1, GAP_MS), NOON_MS + CAP_MS + 1]
    ask = [StreamTimes("ax", times, [])]

    assert run(RedisSessionStore(redis).place(1, ask, must_know=False)) == [
        [Span(NOON_MS, NOON_MS, NOON_MS + CAP_MS), Span(times[-1], times[-1], times[-1])]
    ]


def test_two_processes_agree_on_a_session(redis, run):
    """Whoever comes first begins it, and the other joins."""
    here, there = RedisSessionStore(redis), RedisSessionStore(redis)
    run(here.place(1, [StreamTimes("ua", [NOON_MS + 7], [])], must_know=False))
    (found,) = run(there.place(1, [StreamTimes("ua", [NOON_MS], [])], must_know=False))

    assert found == [Span(NOON_MS + 7, NOON_MS, NOON_MS + 7)]


def test_streams_of_one_name_are_apart(redis, run):
    """A visitor is not the user of the same name, nor the one of another project."""
    store = RedisSessionStore(redis)
    run(store.place(1, [StreamTimes("ax", [NOON_MS], [])], must_know=False))

    for project_id, stream in ((1, "ux"), (2, "ax")):
        ask = [StreamTimes(stream, [NOON_MS + 5], [])]
        assert run(store.place(project_id, ask, must_know=False)) == [
            [Span(NOON_MS + 5, NOON_MS + 5, NOON_MS + 5)]
        ]


def test_a_redis_that_lost_its_memory_says_so(redis, run):
    """For the first half an hour it may have forgotten a stream; after that it is new."""
    now = NOON_MS / 1000
    store = RedisSessionStore(redis, clock=lambda: now)
    ask = [StreamTimes("ax", [NOON_MS], [])]
    assert run(store.place(1, ask, must_know=True)) == [None]
    now += GAP_MS / 1000 - 1
    assert run(store.place(1, ask, must_know=True)) == [None]
    now += 2

    assert run(store.place(1, ask, must_know=True)) == [[Span(NOON_MS, NOON_MS, NOON_MS)]]


def test_what_is_kept_expires_and_names_nobody(redis, run):
    """A Redis that is full of visitors of last month would take no more events."""
    store = RedisSessionStore(redis)
    run(store.place(1, [StreamTimes("ujo@x.example", [NOON_MS], [])], must_know=False))
    keys = [key for key in run(redis.keys()) if not key.endswith(":since")]

    assert len(keys) == 1
    assert "jo" not in keys[0]
    assert 0 < run(redis.ttl(keys[0])) <= 2 * 60 * 60


def test_an_absent_redis_is_told_as_such(run):
    store = RedisSessionStore(connect("unix:///nowhere/valkey.sock"))

    with pytest.raises(SessionsUnavailable):
        run(store.place(1, [], must_know=True))


@pytest.fixture
def stored(pool, row, run) -> Callable[..., None]:
    """Store events in a session, by how many minutes after noon they happened."""

    def store(session_start: int, *minutes: int, **members: str) -> None:
        start = (NOON + timedelta(minutes=session_start)).isoformat()
        enrichment = json.dumps({"session": {"source": "server", "start": start}})
        rows = [
            row(timestamp=(NOON + timedelta(minutes=minute)).isoformat(), **members)._replace(
                session_id="s", enrichment=enrichment
            )
            for minute in minutes
        ]
        run(PostgresEventStore(pool).append(rows))

    return store


def ms(minutes: int) -> int:
    return NOON_MS + minutes * 60_000


@pytest.mark.parametrize("member", ["userId", "anonymousId"])
def test_stored_events_tell_of_their_sessions(pool, run, project_id, stored, member):
    """Of users and of visitors; only near enough to matter."""
    stored(-60, -60, -40, -20, **{member: "x"})
    stored(-900, -900, **{member: "x"})
    stored(-5, -5, **{member: "y"})
    history = PostgresSessionHistory(pool)
    ask = [StreamTimes(f"{member[0]}{name}", [NOON_MS], []) for name in "xyz"]

    assert run(history.sessions_near(project_id, ask)) == [
        [Span(ms(-60), ms(-60), ms(-20))],
        [Span(ms(-5), ms(-5), ms(-5))],
        [],
    ]


def test_sessions_that_clients_keep_are_not_taken_for_ours(pool, run, project_id, row):
    """Their ids say nothing of when they began."""
    at = NOON.isoformat()
    rows = [
        row(timestamp=at, sessionId="s", **{member: "x"}) for member in ("userId", "anonymousId")
    ]
    run(PostgresEventStore(pool).append(rows))
    ask = [StreamTimes(f"{kind}x", [NOON_MS], []) for kind in "ua"]

    assert run(PostgresSessionHistory(pool).sessions_near(project_id, ask)) == [[], []]


def test_a_device_of_a_user_is_a_stream_of_its_own(pool, run, project_id, stored):
    """Two devices at once are two sessions."""
    stored(-5, -5, userId="x", anonymousId="phone")
    history = PostgresSessionHistory(pool)

    assert run(history.sessions_near(project_id, [StreamTimes("ux", [NOON_MS], [])])) == [[]]
    assert run(history.sessions_near(project_id, [StreamTimes("aphone", [NOON_MS], [])])) == [
        [Span(ms(-5), ms(-5), ms(-5))]
    ]
