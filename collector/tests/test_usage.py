"""How much keys are used: counted without waiting, written now and then, bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, date, datetime

import pytest

from analytics_collector import metrics
from analytics_collector.background import FLUSH_S, CountWriter
from analytics_collector.errors import StoreUnavailable
from analytics_collector.model import KeyUse
from analytics_collector.usage import MAX_WAITING, KeyUsage

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
MIDNIGHT = datetime(2026, 11, 21, tzinfo=UTC)


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self, at: datetime = NOON) -> None:
        self.now = at.timestamp()

    def __call__(self) -> float:
        return self.now


class Store:
    """A store that may be away, and may take its time."""

    def __init__(self) -> None:
        self.uses: list[KeyUse] = []
        self.fault: Exception | None = None

    async def add_usage(self, uses: Sequence[KeyUse]) -> None:
        if self.fault is not None:
            raise self.fault
        self.uses += uses


def writer_of(usage: KeyUsage, store: Store, every_s: float = FLUSH_S) -> CountWriter:
    return CountWriter("usage of keys", usage, store.add_usage, every_s)


def test_uses_are_added_up_by_key_and_given_once():
    """What was taken to be written is not taken again."""
    usage = KeyUsage(Clock())
    usage.request(2)
    usage.request(1)
    usage.request(2)
    usage.events(2, 10, 3)

    day = NOON.date()
    assert usage.take() == [KeyUse(1, day, 1, 0, 0, NOON), KeyUse(2, day, 2, 10, 3, NOON)]
    assert usage.take() == []


def test_a_day_ends_at_midnight_in_utc():
    """What was sent before stays on the day before, however late it is written."""
    clock = Clock(MIDNIGHT)
    usage = KeyUsage(clock)
    clock.now -= 0.001
    usage.request(1)
    clock.now += 0.001
    usage.request(1)

    assert [use.day for use in usage.take()] == [date(2026, 11, 20), date(2026, 11, 21)]


def test_what_could_not_be_written_is_written_with_what_came_since():
    """An outage of the store costs no count, and no count moves to another day."""
    clock = Clock()
    usage, store = KeyUsage(clock), Store()
    writer = writer_of(usage, store)

    async def scenario() -> None:
        usage.request(1)
        usage.events(1, 5, 1)
        store.fault = StoreUnavailable("away")
        await writer.flush()
        usage.request(1)
        clock.now = MIDNIGHT.timestamp()
        usage.request(1)
        store.fault = None
        await writer.flush()

    asyncio.run(scenario())

    assert store.uses == [
        KeyUse(1, NOON.date(), 2, 5, 1, NOON),
        KeyUse(1, MIDNIGHT.date(), 1, 0, 0, MIDNIGHT),
    ]


def test_a_fault_of_ours_is_logged_and_counting_goes_on(caplog: pytest.LogCaptureFixture):
    """Statistics never end a server, nor do they end unseen."""
    usage, store = KeyUsage(Clock()), Store()

    async def scenario() -> None:
        writer = writer_of(usage, store, every_s=0.01)
        usage.request(1)
        store.fault = RuntimeError("a mistake")
        writer.start()
        async with asyncio.timeout(10):
            while not caplog.records:
                await asyncio.sleep(0)
        store.fault = None
        usage.request(1)
        await writer.stop()

    asyncio.run(scenario())

    assert len(store.uses) == 1
    (record,) = caplog.records
    assert (record.levelname, record.job) == ("ERROR", "usage of keys")


def test_what_was_counted_is_written_when_the_server_stops():
    """An ordinary stop loses nothing, however long the next time is away."""
    usage, store = KeyUsage(Clock()), Store()

    async def scenario() -> None:
        writer = writer_of(usage, store, every_s=3600)
        writer.start()
        usage.request(1)
        await writer.stop()

    asyncio.run(scenario())

    assert [use.requests for use in store.uses] == [1]


def test_it_is_written_again_and_again():
    """Whoever looks sees what was used a moment ago."""
    usage, store = KeyUsage(Clock()), Store()

    async def scenario() -> None:
        writer = writer_of(usage, store, every_s=0.01)
        writer.start()
        for written in (1, 2):
            usage.request(1)
            async with asyncio.timeout(10):
                while len(store.uses) < written:
                    await asyncio.sleep(0)
        await writer.stop()

    asyncio.run(scenario())


def test_counts_that_can_not_be_written_fill_no_memory():
    """While the store is away for long, what is too much is left out, and counted."""
    usage = KeyUsage(Clock())
    before = metrics.USAGE_DROPPED._value.get()

    for key_id in range(MAX_WAITING + 10):
        usage.request(key_id)
    usage.request(0)

    assert metrics.USAGE_DROPPED._value.get() - before == 10
    uses = usage.take()
    assert len(uses) == MAX_WAITING
    assert uses[0].requests == 2
