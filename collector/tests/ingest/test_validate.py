"""What the vectors can't list: any event at all, and the way of a valid one into the store."""

from __future__ import annotations

import json
import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from analytics_collector._limits import MAX_DEPTH
from analytics_collector.adapters.postgres.store import PostgresEventStore
from analytics_collector.ingest import decode
from analytics_collector.ingest.validate import new_message_id, validate
from analytics_collector.model import EventRow, ValidBatch

ERRORS = json.loads((Path(__file__).parents[3] / "spec" / "errors.json").read_text())
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NOW = datetime(2026, 11, 20, 10, tzinfo=UTC)
FORCE_EXACT = {"ignored": "0000000000000000000"}

# Any text that JSON can carry: the parts of surrogate pairs and NUL come often enough.
texts = st.text(st.characters(), max_size=12) | st.text("\0\ud800\udc00\ufffda", max_size=4)
numbers = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=10,
)
identifiers = st.none() | texts
objects = st.none() | st.dictionaries(texts, values, max_size=4)
times = st.integers(-(10**9), 10**11).map(lambda s: (EPOCH + timedelta(seconds=s)).isoformat()) | (
    st.sampled_from(
        ["2026-11-20T10:00:31Z", "2026-11-20t10:00:31,5-23:59", "0001-01-01T00:00+14:00"]
    )
)
plausible = st.fixed_dictionaries(
    {"type": st.sampled_from(["track", "identify", "page", "screen", "group", "alias"])},
    optional={
        "name": texts,
        "messageId": st.uuids().map(str),
        "userId": identifiers,
        "anonymousId": identifiers,
        "sessionId": identifiers,
        "groupId": identifiers,
        "previousId": identifiers,
        "timestamp": times,
        "properties": objects,
        "traits": objects,
        "context": objects.filter(lambda it: not it or "page" not in it),
        "custom": values,
    },
)
spoiled = st.builds(
    lambda event, name, value: {**event, name: value},
    plausible,
    st.sampled_from(["type", "name", "messageId", "userId", "timestamp", "properties", "context"]),
    values | st.just(2**70) | times,
)


def judged(*events: Any, **members: Any) -> ValidBatch:
    body = json.dumps({"batch": events, **members}).encode()
    return validate(decode.parse(body), 1, NOW)


@settings(max_examples=200, deadline=None)
@given(st.lists(plausible | spoiled | values, min_size=1, max_size=5))
def test_every_event_has_exactly_one_outcome(events):
    """Whatever JSON an event is, it is a row or a refusal with a known code, and never a fault."""
    batch = judged(*events, sentAt="2026-11-20T10:00:00Z")

    assert len(batch.rows) == len(batch.indexes)
    outcomes = batch.indexes + [rejection.index for rejection in batch.rejected]
    assert sorted(outcomes) == list(range(len(events)))
    assert {rejection.code for rejection in batch.rejected} <= set(ERRORS["event"])


def nested(levels: int) -> dict[str, Any]:
    """Return an event of so many levels."""
    event: Any = 1
    for _ in range(levels - 2):
        event = [event]
    return {"type": "track", "name": "deep", "properties": {"a": event}}


@settings(max_examples=150, deadline=None)
@given(st.lists(plausible | spoiled, min_size=1, max_size=3))
@example([nested(MAX_DEPTH), nested(MAX_DEPTH + 1)])
def test_the_verdict_does_not_depend_on_the_neighbours(events):
    """A neighbour that needs the exact parser changes nothing for the others."""
    # One without an id gets a new one each time.
    named = [
        {**event, "messageId": str(uuid.UUID(int=1 + n))}
        if event.get("messageId") is None
        else event
        for n, event in enumerate(events)
    ]
    plain = judged(*named)
    exact = judged(*named, **FORCE_EXACT)

    assert exact.rows == plain.rows
    assert exact.rejected == plain.rejected


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(plausible | spoiled, min_size=1, max_size=6))
def test_an_accepted_event_is_stored_as_it_was_sent(pool, run, events):
    """Postgres takes every row that passed, and gives back what the client said."""
    events = [{**event, "messageId": str(uuid.uuid4())} for event in events]
    batch = judged(*events)

    stored = run(stored_rows(pool, batch.rows)) if batch.rows else []

    for row, record, index in zip(batch.rows, stored, batch.indexes, strict=True):
        for name in EventRow._fields:
            if name not in ("properties", "traits", "context", "extra"):
                assert (name, record[name]) == (name, getattr(row, name))
        sent = events[index]
        for name in ("userId", "anonymousId", "sessionId", "groupId", "previousId"):
            assert record[to_snake(name)] == (sent.get(name) or None)
        for name in ("properties", "context"):
            assert same(sent.get(name) or {}, json.loads(record[name]))
        if sent.get("traits"):
            assert same(sent["traits"], json.loads(record["traits"]))
        if "custom" in sent:
            assert same(sent["custom"], json.loads(record["extra"])["custom"])


async def stored_rows(pool: Any, rows: list[EventRow]) -> list[Any]:
    assert await PostgresEventStore(pool).append(rows) == []
    query = (
        "select *, message_id::text as message_id from events where message_id = any($1::uuid[])"
    )
    records = await pool.fetch(query + " order by seq", [row.message_id for row in rows])
    return [dict(record) for record in records]


def to_snake(name: str) -> str:
    return name.removesuffix("Id") + "_id"


def same(sent: Any, kept: Any) -> bool:
    """Return whether *kept* is what JSON says *sent* is."""
    if isinstance(sent, dict):
        wanted = {repaired(key): value for key, value in sent.items()}
        return wanted.keys() == kept.keys() and all(same(wanted[k], kept[k]) for k in wanted)
    if isinstance(sent, list):
        return len(sent) == len(kept) and all(map(same, sent, kept))
    if isinstance(sent, str):
        return bool(repaired(sent) == kept)
    if isinstance(sent, float):
        return not isinstance(kept, bool) and float(kept) == sent
    return type(sent) is type(kept) and bool(sent == kept)


def repaired(text: str) -> str:
    """Return *text* as it is kept: U+FFFD for NUL and for each half of a pair that stands alone."""
    whole: str = json.loads(json.dumps(text))  # halves that belong together are one character
    return "".join("\ufffd" if c == "\0" or "\ud800" <= c <= "\udfff" else c for c in whole)


def test_ids_that_we_give_are_unique_and_lie_in_the_order_of_time():
    """An event without an id gets a UUIDv7: new ids land together at the end of the index."""
    before_ms = time.time_ns() // 1_000_000
    ids = [uuid.UUID(new_message_id()) for _ in range(3000)]
    after_ms = time.time_ns() // 1_000_000

    assert {(made.version, made.variant) for made in ids} == {(7, uuid.RFC_4122)}
    assert len(set(ids)) == len(ids)
    moments = [made.int >> 80 for made in ids]
    assert moments == sorted(moments)
    assert before_ms <= moments[0] <= moments[-1] <= after_ms


def test_events_without_an_id_get_one_each():
    """Two events that look alike are two events."""
    rows = judged({"type": "page"}, {"type": "page"}).rows

    assert rows[0].message_id != rows[1].message_id


@pytest.mark.parametrize("member", ["properties", "traits", "context"])
def test_a_bracket_in_a_text_is_no_level(member):
    """Code in a property is long, not deep."""
    code = "[{" * MAX_DEPTH
    kind = {"type": "identify", "userId": "u"}

    assert judged({**kind, member: {"code": code}}).rejected == []


@pytest.mark.parametrize("kind", [{}, {"type": "track", "name": 1}], ids=["no type", "bad name"])
@pytest.mark.parametrize("levels", [MAX_DEPTH, 254, 256, 900])
def test_an_event_that_is_wrong_and_deep_costs_no_other(kind, levels):
    """Of one without a type the validator would tell everything, however deep it is."""
    good = {"type": "page"}
    deep = []
    for _ in range(levels):
        deep = [deep]

    batch = judged(good, {**kind, "properties": {"a": deep}}, good)

    assert batch.indexes == [0, 2]
    assert [rejection.index for rejection in batch.rejected] == [1]


def test_numbers_count_with_the_digits_that_they_will_have():
    """Five bytes of 1e300 take three hundred in the store, in the stream and in every answer."""
    few = {"type": "track", "name": "a", "properties": {"v": [1e300] * 100}}
    many = {"type": "track", "name": "a", "properties": {"v": [1e300] * 1000}}
    words = {"type": "track", "name": "a", "properties": {"v": ["see the 3e5 trees"] * 1000}}

    batch = judged(few, many, words)

    assert batch.indexes == [0, 2]
    assert [rejection.code for rejection in batch.rejected] == ["EVENT_TOO_LARGE"]
