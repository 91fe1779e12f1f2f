"""Group commit: many requests, one transaction, and to each its own answer."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest

from analytics_collector.errors import StoreUnavailable
from analytics_collector.ingest.validate import validate
from analytics_collector.ingest.write import (
    MAX_GROUP_BYTES,
    MAX_GROUP_EVENTS,
    GroupWriter,
    Stored,
)
from analytics_collector.interfaces import RowsRefused
from analytics_collector.model import EventRow, RawBatch

ALL_NEW = Stored([], [])


def event(name: str = "e", message_id: str | None = None) -> EventRow:
    raw = {"type": "track", "name": name, "messageId": message_id or str(uuid.uuid4())}
    return validate(RawBatch([raw], None, exact=False), 1, datetime.now(UTC)).rows[0]


class Store:
    """An event store in memory that can be slow, broken, or refuse a row named `poison`."""

    def __init__(self) -> None:
        self.commits: list[list[str]] = []
        self.calls = 0
        self.faults: dict[int, Exception] = {}  # by the number of the call, from 1
        self.entered = asyncio.Event()
        self.open = asyncio.Event()
        self.open.set()
        self.known: set[str] = set()

    async def append(self, rows: Sequence[EventRow]) -> list[int]:
        self.calls += 1
        self.entered.set()
        await self.open.wait()
        if self.calls in self.faults:
            raise self.faults[self.calls]
        if any(row.name == "poison" for row in rows):
            raise RowsRefused("poison")
        duplicates = [n for n, row in enumerate(rows) if row.message_id in self.known]
        self.known.update(row.message_id for row in rows)
        self.commits.append([row.name for row in rows])
        return duplicates


@asynccontextmanager
async def writing() -> AsyncIterator[tuple[GroupWriter, Store]]:
    """Give a writer that runs, and its store."""
    store = Store()
    writer = GroupWriter(store)
    writer.start()
    try:
        yield writer, store
    finally:
        store.open.set()
        await writer.stop()


@asynccontextmanager
async def gathering() -> AsyncIterator[tuple[GroupWriter, Store, list[asyncio.Task[Stored]]]]:
    """Give a writer whose store is busy with a first request; the others become one group.

    What is appended to the list is finished when the block ends.
    """
    async with writing() as (writer, store):
        store.open.clear()
        first = asyncio.create_task(writer.write([event("first")], 1))
        await store.entered.wait()
        tasks: list[asyncio.Task[Stored]] = []
        yield writer, store, tasks
        store.open.set()
        await asyncio.gather(first, *tasks, return_exceptions=True)


async def queue(writer: GroupWriter, *rows: EventRow, size_bytes: int = 1) -> asyncio.Task[Stored]:
    """Return a request that has arrived at the writer."""
    task = asyncio.create_task(writer.write(rows, size_bytes))
    await asyncio.sleep(0)  # let it run up to where it waits
    return task


def test_requests_that_come_during_a_commit_share_the_next(run):
    """Twenty requests cost one transaction, and each gets its own answer."""

    async def scenario() -> None:
        async with gathering() as (writer, store, tasks):
            for n in range(20):
                tasks.append(await queue(writer, event(f"e{n}")))

        assert store.commits == [["first"], [f"e{n}" for n in range(20)]]
        assert [task.result() for task in tasks] == [ALL_NEW] * 20

    run(scenario())


def test_a_commit_of_many_events_of_one_project_keeps_no_other_waiting(run):
    """Its neighbours are written beside it; its own next request waits for it (RES-16)."""

    async def scenario() -> None:
        async with writing() as (writer, store):
            store.open.clear()
            flood = await queue(writer, *(event("flood") for _ in range(500)))
            await store.entered.wait()
            own = await queue(writer, event("own"))
            store.entered.clear()
            neighbour = await queue(writer, event("neighbour")._replace(project_id=2))
            async with asyncio.timeout(5):
                await store.entered.wait()

            assert store.calls == 2
            store.open.set()
            await asyncio.gather(flood, own, neighbour)
            assert store.commits[1:] == [["neighbour"], ["own"]]

    run(scenario())


def test_nobody_is_answered_before_the_commit(run):
    """202 means committed: while the store works on the group all of it waits."""

    async def scenario() -> None:
        async with gathering() as (writer, _, tasks):
            tasks.append(await queue(writer, event()))

            assert not tasks[0].done()

    run(scenario())


def test_an_id_twice_in_a_group_is_one_row_and_the_later_is_told(run):
    """First write wins, also between requests that came at once."""
    twice = str(uuid.uuid4())

    async def scenario() -> None:
        async with gathering() as (writer, store, tasks):
            tasks.append(await queue(writer, event("a"), event("winner", twice)))
            tasks.append(await queue(writer, event("loser", twice), event("b")))
            tasks.append(await queue(writer, event("c"), event("d"), event("loser", twice)))

        assert store.commits[1] == ["a", "winner", "b", "c", "d"]
        assert [task.result().duplicates for task in tasks] == [[], [0], [2]]

    run(scenario())


def test_what_was_there_before_is_told_to_the_request_that_sent_it(run):
    """A retry learns that its events are duplicates; its neighbours hear nothing of it."""
    known = event("known")

    async def scenario() -> None:
        async with gathering() as (writer, store, tasks):
            store.known.add(known.message_id)
            tasks.append(await queue(writer, event("a")))
            tasks.append(await queue(writer, event("b"), known))

        assert [task.result() for task in tasks] == [ALL_NEW, Stored([1], [])]

    run(scenario())


def test_the_same_id_in_two_projects_is_two_events(run):
    """No tenant can suppress the event of another (TIM-14)."""
    shared = event("mine")

    async def scenario() -> None:
        async with gathering() as (writer, store, tasks):
            tasks.append(await queue(writer, shared, shared._replace(project_id=2, name="yours")))

        assert store.commits[1] == ["mine", "yours"]
        assert tasks[0].result() == ALL_NEW

    run(scenario())


def test_every_request_of_a_failed_group_is_told_and_the_next_is_not(run):
    """All of the group are told to come again, nobody gets a 202, and the writer goes on."""

    async def scenario() -> None:
        async with gathering() as (writer, store, tasks):
            tasks += [await queue(writer, event(f"e{n}")) for n in range(5)]
            store.faults[2] = StoreUnavailable("away")

        assert {type(task.exception()) for task in tasks} == {StoreUnavailable}
        assert store.commits == [["first"]]

    run(scenario())


def test_the_writer_goes_on_after_a_failure(run):
    """What comes later is stored as if nothing had been."""

    async def scenario() -> None:
        async with writing() as (writer, store):
            store.faults[1] = StoreUnavailable("away")
            with pytest.raises(StoreUnavailable):
                await writer.write([event()], 1)

            assert await writer.write([event()], 1) == ALL_NEW

    run(scenario())


def test_a_store_that_goes_away_while_poison_is_sought_is_no_acceptance(run):
    """Half a group stored is a 503 for all: the other half would be lost otherwise."""

    async def scenario() -> None:
        async with gathering() as (writer, store, tasks):
            tasks += [await queue(writer, event(name)) for name in ("a", "b", "poison", "c")]
            store.faults[4] = StoreUnavailable("away")

        assert store.commits == [["first"], ["a", "b"]]
        assert {type(task.exception()) for task in tasks} == {StoreUnavailable}

    run(scenario())


def test_a_fault_of_ours_is_a_503_and_not_the_end(run, caplog):
    """The writer survives what it did not expect, and the log has the traceback."""

    async def scenario() -> None:
        async with writing() as (writer, store):
            store.faults[1] = ZeroDivisionError()
            with pytest.raises(StoreUnavailable):
                await writer.write([event()], 1)

            assert await writer.write([event()], 1) == ALL_NEW

    run(scenario())
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("places", [[0], [37], [99], [10, 11, 80]])
def test_a_poison_row_is_found_and_costs_no_other(run, caplog, places):
    """The store's refusal of one row is told to its sender alone; the others are stored."""

    async def scenario() -> None:
        async with gathering() as (writer, store, tasks):
            for n in range(50):
                pair = (event("poison" if 2 * n + i in places else f"e{2 * n + i}") for i in (0, 1))
                tasks.append(await queue(writer, *pair))

        refused = [2 * n + place for n, task in enumerate(tasks) for place in task.result().refused]
        assert refused == places
        stored = [name for commit in store.commits[1:] for name in commit]
        assert stored == [f"e{n}" for n in range(100) if n not in places]  # and in their order
        assert store.calls <= 2 + 14 * len(places)  # by halves, each row never twice alone

    run(scenario())
    assert caplog.text.count("Row refused by the store") == len(places)


def test_nothing_but_poison_comes_to_an_end(run):
    """A group of which nothing can be stored is refused, not tried for ever."""

    async def scenario() -> None:
        async with writing() as (writer, store):
            stored = await writer.write([event("poison") for _ in range(8)], 1)

            assert sorted(stored.refused) == list(range(8))
            assert store.calls == 15
            assert store.commits == []

    run(scenario())


def test_a_repeat_of_a_refused_row_is_no_duplicate(run):
    """Nobody is told that an event is stored when the one that it repeats was refused."""
    shared = str(uuid.uuid4())

    async def scenario() -> None:
        async with gathering() as (writer, _, tasks):
            tasks.append(await queue(writer, event("poison", shared)))
            tasks.append(await queue(writer, event("poison", shared), event("fine")))

        assert [task.result() for task in tasks] == [Stored([], [0]), Stored([], [0])]

    run(scenario())


def test_a_client_that_leaves_does_not_disturb_the_group(run):
    """Its events are written with the rest: it may have left after sending them all."""

    async def scenario() -> None:
        async with gathering() as (writer, store, tasks):
            leaving = await queue(writer, event("left"))
            tasks.append(await queue(writer, event("stayed")))
            leaving.cancel()

        assert leaving.cancelled()
        assert tasks[0].result() == ALL_NEW
        assert store.commits[1] == ["left", "stayed"]

    run(scenario())


def test_stopping_writes_what_was_taken_then_refuses(run):
    """A server that ends keeps its word to those whose events it has."""

    async def scenario() -> None:
        async with gathering() as (writer, store, tasks):
            tasks.append(await queue(writer, event("taken")))
            stopping = asyncio.create_task(writer.stop())
            await asyncio.sleep(0)
            with pytest.raises(StoreUnavailable):
                await writer.write([event("late")], 1)
            store.open.set()
            await stopping

            assert tasks[0].result() == ALL_NEW
            assert store.commits == [["first"], ["taken"]]

    run(scenario())


def test_a_group_has_no_more_events_than_allowed(run):
    """A transaction stays small enough that nobody waits long for the others."""

    async def scenario() -> None:
        async with gathering() as (writer, store, tasks):
            for _ in range(5):
                tasks.append(
                    await queue(writer, *(event() for _ in range(MAX_GROUP_EVENTS * 2 // 5)))
                )
            tasks.append(await queue(writer, *(event() for _ in range(MAX_GROUP_EVENTS + 1))))

        sizes = [len(commit) for commit in store.commits[1:]]
        assert sizes == [800, 800, 400, MAX_GROUP_EVENTS + 1]  # a request is never torn apart

    run(scenario())


def test_a_group_has_no_more_bytes_than_allowed(run):
    """Neither the statement nor the entry in the stream becomes large."""

    async def scenario() -> None:
        async with gathering() as (writer, store, tasks):
            for _ in range(4):
                tasks.append(await queue(writer, event(), size_bytes=MAX_GROUP_BYTES // 2))

        assert [len(commit) for commit in store.commits[1:]] == [2, 2]

    run(scenario())
