"""The whole way of an event: SDK, collector, Postgres, Redis, consumer, answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from harness.client import Answer, Event, Mint, Sender
from harness.collector import Collector, Serve, free_port
from harness.sdk import sdk_program
from harness.waiting import wait_for

PROPERTIES: dict[str, Any] = {
    "text": "Zürich \u2028 \U0001f600 'quoted\" \\ back",
    "empty": "",
    "integer": 9_007_199_254_740_993,
    "largest": 2**63 - 1,
    "negative": -5,
    "float": 129.95,
    "tiny": 5e-324,
    "yes": True,
    "nothing": None,
    "list": [1, "two", [3.5, {"four": []}]],
    "nested": {"a": {"b": {"c": {}}}},
}

TRACK = """
import json, sys
from analytics_sdk import Client
user_id, count, properties = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
client = Client()
for number in range(count):
    assert client.track("checked", {**properties, "n": number}, user_id=user_id)
"""
FLUSH = (
    TRACK + "assert client.flush(60), client.stats()\nassert client.stats().delivered == count\n"
)
NAMED = """
import sys
from analytics_sdk import Client
client = Client()
client.identify(sys.argv[1], {"plan": "free", "seats": 3})
client.identify(sys.argv[1], {"plan": "pro"})
for name in ("signed_up", "invited", "paid"):
    assert client.track(name, {"amount": 42}, user_id=sys.argv[1])
"""


@pytest.fixture(scope="module")
def serve(collector: Collector) -> Iterator[Serve]:
    """The collector to which all tests of the module send."""
    with collector.serve() as serve:
        yield serve


@pytest.fixture(scope="module")
def key(collector: Collector) -> str:
    """A key that may send and ask."""
    return collector.database.new_key()


def _stored(collector: Collector, user_id: str) -> list[dict[str, Any]]:
    """Return the properties of a user's events, in stored order."""
    rows = collector.database.fetch(
        "select properties from events where user_id = $1 order by seq", user_id
    )
    return [json.loads(row[0]) for row in rows]


def test_what_a_program_tracks_is_stored_once_in_order_and_unchanged(
    collector: Collector, serve: Serve, key: str, tmp_path: Path
) -> None:
    """Properties of every kind come out as they went in, from the first event to the last."""
    arguments = ("u-flush", "137", json.dumps(PROPERTIES))
    with sdk_program(FLUSH, serve.url, key, tmp_path, *arguments) as program:
        assert program.wait() == 0, program.log

    assert _stored(collector, "u-flush") == [PROPERTIES | {"n": number} for number in range(137)]


def test_a_program_that_just_ends_has_delivered(
    collector: Collector, serve: Serve, key: str, tmp_path: Path
) -> None:
    """Nobody has to flush before the exit."""
    with sdk_program(TRACK, serve.url, key, tmp_path, "u-exit", "25", "{}") as program:
        assert program.wait() == 0, program.log

    assert _stored(collector, "u-exit") == [{"n": number} for number in range(25)]
    assert program.log == ""


def test_a_collector_that_comes_late_gets_everything(
    collector: Collector, key: str, tmp_path: Path
) -> None:
    """Events wait in the program until there is somebody to take them."""
    serve = collector.serve(port=free_port())
    with sdk_program(FLUSH, serve.url, key, tmp_path, "u-late", "60", "{}") as program:
        wait_for(lambda: "no_answer" in program.log or "No answer" in program.log, "a warning")
        with serve:
            assert program.wait(60) == 0, program.log

    assert _stored(collector, "u-late") == [{"n": number} for number in range(60)]


def test_the_same_batch_fifty_times_at_once_is_stored_once(
    collector: Collector, serve: Serve, key: str
) -> None:
    """Everybody gets 202; for all but one everything is a duplicate."""
    events = Mint(50).events(10, "u-race")

    def send(_: int) -> Answer:
        with Sender(serve.url, key) as sender:
            return sender.send(events)

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(send, range(50)))

    assert {answer.status for answer in answers} == {202}
    assert {answer.json["eventCount"] for answer in answers} == {10}
    assert sum(answer.json["duplicates"] for answer in answers) == 49 * 10
    assert _stored(collector, "u-race") == [{"n": number} for number in range(10)]


def test_batches_that_overlap_in_opposite_order_never_fail(
    collector: Collector, serve: Serve, key: str
) -> None:
    """Two transactions that want each other's ids must not show the client a deadlock."""
    events = Mint(51).events(200, "u-overlap")

    def send(batch: list[Event]) -> Answer:
        with Sender(serve.url, key) as sender:
            return sender.send(batch)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(send, [events, events[::-1]] * 8))

    assert {answer.status for answer in answers} == {202}
    assert sum(answer.json["duplicates"] for answer in answers) == 15 * 200
    assert len(_stored(collector, "u-overlap")) == 200


def test_a_user_that_was_identified_is_known_with_the_latest_traits(
    collector: Collector, serve: Serve, key: str, tmp_path: Path
) -> None:
    """What was said later wins, and what was not said again stays."""
    with sdk_program(NAMED, serve.url, key, tmp_path, "u-named") as program:
        assert program.wait() == 0, program.log
    traits = collector.database.value("select traits from users where user_id = 'u-named'")

    assert json.loads(traits) == {"plan": "pro", "seats": 3}


def test_a_funnel_and_a_history_tell_what_happened(serve: Serve, key: str) -> None:
    """Asked over HTTP right after the events were acknowledged."""
    mint = Mint(52)
    start = datetime.now(UTC) - timedelta(hours=1)
    journeys = {"f-1": ("seen", "added", "bought"), "f-2": ("seen", "added"), "f-3": ("seen",)}
    steps = ("seen", "added", "bought")
    with Sender(serve.url, key) as sender:
        for user_id, names in journeys.items():
            batch = [
                mint.event(
                    user_id,
                    name=name,
                    timestamp=(start + timedelta(minutes=minute)).isoformat(),
                    properties={"minute": minute},
                )
                for minute, name in enumerate(names)
            ]
            assert sender.send(batch).json["eventCount"] == len(names)
        asked = {"steps": [{"event": name} for name in steps], "windowSeconds": 3600}
        funnel = sender.post("/api/v1/analytics/funnel", asked)
        history = sender.get("/api/v1/users/f-1/events?limit=2")

    assert funnel.status == 200, funnel
    assert [step["userCount"] for step in funnel.json["steps"]] == [3, 2, 1]
    assert funnel.json["totalUsers"] == 3
    assert history.status == 200, history
    assert [event["name"] for event in history.json["events"]] == ["bought", "added"]
    assert [event["properties"] for event in history.json["events"]] == [
        {"minute": 2},
        {"minute": 1},
    ]


def test_the_daily_counts_catch_up_with_what_is_stored(
    collector: Collector, serve: Serve, key: str
) -> None:
    """By way of Redis, each event counts once, on its own day."""
    mint = Mint(53)
    days = ("2026-10-01T23:59:59.999Z", "2026-10-02T00:00:00Z", "2026-10-02T12:00:00+14:00")
    with collector.worker(), Sender(serve.url, key) as sender:
        for _ in range(5):
            batch = [mint.event(name="counted", timestamp=day) for day in days]
            assert sender.send(batch).status == 202
        collector.database.wait_counted()
    rows = collector.database.fetch(
        "select day::text, event_count from daily_counts where name = 'counted' order by day"
    )

    # 12:00 at +14:00 is the evening before, in UTC.
    assert [tuple(row) for row in rows] == [("2026-10-01", 10), ("2026-10-02", 5)]
