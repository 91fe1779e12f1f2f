"""Rejected events reach the dead letters without ever being in the way."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from analytics_collector import metrics
from analytics_collector.errors import StoreUnavailable
from analytics_collector.ingest import rejected as module
from analytics_collector.ingest.rejected import RejectedEvents, RejectedWriter
from analytics_collector.model import ApiKey, DeadLetter, RawBatch, Rejection

AT = datetime(2026, 1, 1, tzinfo=UTC)


def key(project_id: int = 1) -> ApiKey:
    return ApiKey(7, project_id, frozenset({"ingest"}), None)


def note(events: RejectedEvents, count: int = 1, project_id: int = 1, size: int = 10) -> None:
    batch = RawBatch([{"name": "n", "a": "x" * size}], "2026-01-01T00:00:00Z", exact=False)
    for _ in range(count):
        events.note(batch, [Rejection(0, "m", "INVALID_TYPE", "type")], key(project_id), AT)


def dropped() -> float:
    count: float = metrics.DEAD_LETTERS_DROPPED._value.get()
    return count


def drain(events: RejectedEvents) -> int:
    count = 0
    while group := events.take():
        count += len(group)
    return count


class Store:
    """Keeps letters in memory; fails as often as it is told."""

    def __init__(self, failures: int = 0) -> None:
        self.letters: list[DeadLetter] = []
        self.failures = failures
        self.bounded: list[Sequence[int]] = []
        self.fault: Exception | None = None

    async def add(self, letters: Sequence[DeadLetter]) -> None:
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("away")
        self.letters += letters

    async def bound(self, project_ids: Sequence[int], max_per_project: int) -> int:
        if self.fault is not None:
            raise self.fault
        self.bounded.append(project_ids)
        return 0


def write(events: RejectedEvents, store: Store, max_per_project: int = 100) -> None:
    """Run a writer from start to stop."""

    async def scenario() -> None:
        writer = RejectedWriter(events, store, "secret", max_per_project, pause_s=0.001)
        writer.start()
        await writer.stop()

    asyncio.run(scenario())


def test_what_is_noted_is_written_with_all_that_is_known():
    """Also what is still in memory when the server stops."""
    events, store = RejectedEvents(), Store()
    note(events)
    events.note_body(b"{not json", "INVALID_JSON", key(), AT)

    write(events, store)

    assert store.letters == [
        DeadLetter(
            *(1, "validate", "INVALID_TYPE", "type", "n", 7, "m", AT, "2026-01-01T00:00:00Z"),
            *('{"name":"n","a":"xxxxxxxxxx"}', True),
        ),
        DeadLetter(
            *(1, "decode", "INVALID_JSON", None, None, 7, None, AT, None),
            *('"{not json"', False),
        ),
    ]


@pytest.mark.parametrize(
    ("code", "stage"),
    [("MISSING_NAME", "validate"), ("SCHEMA_VIOLATION", "schema"), ("INTERNAL_INVALID", "store")],
)
def test_the_stage_is_the_one_that_refused(code, stage):
    """So an operator sees where to look."""
    assert module.stage_of(code) == stage


def test_one_project_can_not_take_the_room_of_the_others():
    """However much nonsense it sends, the mistakes of others are kept."""
    events = RejectedEvents()
    before = dropped()
    note(events, 3_000)
    note(events, 10, project_id=2)

    assert dropped() - before == 1_000
    assert drain(events) == 2_010


def test_memory_is_bounded_in_number_and_in_bytes():
    """What finds no room is counted, and nothing waits for it."""
    events = RejectedEvents()
    before = dropped()
    for project_id in range(20):
        note(events, 300, project_id=project_id)
    assert dropped() - before == 1_000
    assert drain(events) == module.MAX_WAITING

    before = dropped()
    for project_id in range(20):
        note(events, 20, project_id=project_id, size=90_000)
    kept = 400 - (dropped() - before)
    assert kept * 90_000 < module.MAX_WAITING_BYTES + 100_000
    assert drain(events) == kept

    note(events)  # there is room again
    assert drain(events) == 1


def test_postgres_away_costs_letters_and_nothing_else():
    """They are tried a few times, then counted as lost; the writer goes on."""
    events, store = RejectedEvents(), Store(failures=1)
    before = dropped()
    note(events, 3)
    write(events, store)
    assert (store.letters, dropped() - before) == ([], 3)

    note(events, 2)
    write(events, store)
    assert len(store.letters) == 2


def test_a_project_is_bounded_as_it_grows():
    """Even where no worker runs."""
    events, store = RejectedEvents(), Store()
    note(events, 400)
    write(events, store, max_per_project=1_000)

    assert store.bounded == [[1]]


def test_a_fault_while_bounding_does_not_end_the_writer(caplog):
    """The letters of the first group are written, and so are those behind it."""
    events, store = RejectedEvents(), Store()
    store.fault = ValueError("ours")
    note(events, 400)
    write(events, store, max_per_project=1_000)

    assert len(store.letters) == 400
    assert "Dead letters not bounded" in caplog.text
