"""What becomes of events that a consumer fails on, and of those beside them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import asyncpg
import orjson
import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from analytics_collector import metrics
from analytics_collector.adapters.postgres.dead_letters import PostgresDeadLetters
from analytics_collector.adapters.redis.names import STREAM
from analytics_collector.model import Entry, LetterFilter
from analytics_collector.worker.consumer import is_fault_of_events
from analytics_collector.worker.daily_counts import NAME, DailyCounts
from analytics_collector.worker.reapply import Reapply


class Picky(DailyCounts):
    """Counts, but fails on events of some names, in the way that it is given."""

    def __init__(self, fault: Exception | None = None, *names: str) -> None:
        self._fault = fault or KeyError("secret value")
        self._names = set(names or ("poison",))
        self.calls: list[list[str]] = []

    async def apply(self, connection: asyncpg.Connection, entries: Sequence[Entry]) -> None:
        # Half of the work is done when it fails.
        await super().apply(connection, entries)
        names = [event["name"] for entry in entries for event in orjson.loads(entry.events)]
        self.calls.append(names)
        if self._names & set(names):
            raise self._fault


async def letters(plant: Any) -> list[Any]:
    return await PostgresDeadLetters(plant.pool).newest(LetterFilter(), 100, with_payload=True)


async def counts(plant: Any) -> dict[str, int]:
    records = await plant.pool.fetch("select name, event_count from daily_counts")
    return {record["name"]: record["event_count"] for record in records}


def until_passed(plant: Any) -> Any:
    async def passed() -> bool:
        at = await plant.pool.fetchval("select commit_id from consumers where name = $1", NAME)
        pending = await plant.redis.xpending(STREAM, NAME) if at else {"pending": 1}
        last = await plant.pool.fetchval("select max(commit_id) from commits")
        return bool(at == last and pending["pending"] == 0)

    return plant.until(passed)


def test_a_poison_event_costs_no_other_event_of_its_commit(plant, new_event, ended, run):
    """After five tries it is a dead letter, its neighbours are counted, the stream moves on."""

    async def scenario() -> None:
        await plant.commit(new_event("before"))
        await plant.commit(
            *(new_event("good") for _ in range(5)),
            new_event("poison", properties={"a": '}, {"]['}),
            *(new_event("good") for _ in range(7)),
        )
        await plant.commit(new_event("after"))
        picky = Picky()

        async with ended(plant.keep_publishing(), plant.keep_counting(picky)):
            await until_passed(plant)

        assert await counts(plant) == {"before": 1, "good": 12, "after": 1}
        [letter] = await letters(plant)
        assert (letter.stage, letter.reason) == ("consumer:daily_counts", "KeyError")
        assert (letter.project_id, letter.name, letter.is_whole) == (1, "poison", True)
        stored = await plant.pool.fetchval(
            "select message_id::text from events where name = 'poison'"
        )
        assert letter.message_id == stored == orjson.loads(letter.payload)["messageId"]
        whole_commit = [call for call in picky.calls if len(call) == 13]
        # Five tries of its own, the one that is halved, and perhaps the very first.
        assert len(whole_commit) in (6, 7)

    run(scenario())


def test_all_events_of_a_commit_may_be_poison(plant, new_event, ended, run):
    """Each is a dead letter of its own, and what comes after is counted."""

    async def scenario() -> None:
        await plant.commit(*(new_event("poison") for _ in range(9)))
        await plant.commit(new_event("after"))
        before = metrics.DEAD_LETTERS.labels("consumer:daily_counts")._value.get()

        async with ended(plant.keep_publishing(), plant.keep_counting(Picky())):
            await until_passed(plant)

        assert await counts(plant) == {"after": 1}
        assert len({letter.message_id for letter in await letters(plant)}) == 9
        after = metrics.DEAD_LETTERS.labels("consumer:daily_counts")._value.get()
        assert after - before == 9

    run(scenario())


@pytest.mark.parametrize(
    "statement",
    [
        "select 1 / 0",
        "insert into daily_counts values (1, null, '', 1)",
        "do $$ begin raise exception 'no'; end $$",
    ],
)
def test_what_postgres_refuses_for_its_value_is_poison_too(plant, new_event, ended, run, statement):
    """Not only what our own code trips over."""

    class Refused(DailyCounts):
        async def apply(self, connection: asyncpg.Connection, entries: Sequence[Entry]) -> None:
            await super().apply(connection, entries)
            if '"poison"' in "".join(entry.events for entry in entries):
                await connection.execute(statement)

    async def scenario() -> None:
        await plant.commit(new_event("good"), new_event("poison"))
        async with ended(plant.keep_publishing(), plant.keep_counting(Refused())):
            await until_passed(plant)

        assert await counts(plant) == {"good": 1}
        assert [letter.name for letter in await letters(plant)] == ["poison"]

    run(scenario())


@pytest.mark.parametrize(
    "fault",
    [
        asyncpg.ConnectionDoesNotExistError("away"),
        asyncpg.InsufficientPrivilegeError("a grant is missing"),
        asyncpg.InternalClientError("after a terminated backend"),
        asyncpg.DiskFullError("full"),
        ConnectionRefusedError("away"),
        TimeoutError(),
        RedisConnectionError("away"),
    ],
    ids=lambda fault: type(fault).__name__,
)
def test_an_outage_is_no_poison(plant, new_event, run, fault):
    """It is raised, so that the job begins again when it is over; nothing moves until then."""

    async def scenario() -> None:
        await plant.commit(new_event("poison"))
        async with plant.log() as log, plant.log() as other:
            await plant.publish_all(plant.publisher(other))
            picky = Picky(fault)
            for _ in range(7):
                async with asyncio.timeout(5):
                    with pytest.raises(type(fault)):
                        await plant.counter(log, picky).run()

        assert len(picky.calls) == 7
        assert await letters(plant) == []
        assert await counts(plant) == {}

    run(scenario())
    assert not is_fault_of_events(fault)


def test_a_failure_that_passes_costs_nothing(plant, new_event, ended, run):
    """What succeeds within five tries is applied whole, and once."""

    class Recovering(Picky):
        async def apply(self, connection: asyncpg.Connection, entries: Sequence[Entry]) -> None:
            if len(self.calls) >= 5:
                self._names = set()
            await super().apply(connection, entries)

    async def scenario() -> None:
        await plant.commit(new_event("good"), new_event("poison"))
        async with ended(plant.keep_publishing(), plant.keep_counting(Recovering())):
            await plant.until_all_counted()

        assert await letters(plant) == []

    run(scenario())


def test_a_worker_that_dies_while_it_halves_leaves_nothing_half_done(plant, new_event, ended, run):
    """Letters, effect and place are one transaction: the next worker does it all again."""

    class Dying(Picky):
        dead = False

        async def apply(self, connection: asyncpg.Connection, entries: Sequence[Entry]) -> None:
            if len(self.calls) == 10 and not self.dead:
                self.dead = True
                await plant.kill_backends()
            await super().apply(connection, entries)

    async def scenario() -> None:
        await plant.commit(*(new_event("good") for _ in range(8)), new_event("poison"))
        dying = Dying()
        async with ended(plant.keep_publishing(), plant.keep_counting(dying)):
            await until_passed(plant)

        assert dying.dead
        assert await counts(plant) == {"good": 8}
        assert [letter.name for letter in await letters(plant)] == ["poison"]

    run(scenario())


def test_an_entry_that_was_falsified_in_the_stream_is_taken_from_postgres(plant, ended, run):
    """Postgres is the record: what is unreadable in Redis costs no event."""

    async def scenario() -> None:
        await plant.commit()
        await plant.commit()
        async with plant.log() as log:
            await plant.publish_all(plant.publisher(log))
        entries = await plant.redis.xrange(STREAM)
        await plant.redis.delete(STREAM)
        for name, fields in entries:
            await plant.redis.xadd(STREAM, {**fields, "events": "[{"}, id=name)

        async with ended(plant.keep_counting()):
            await plant.until_all_counted()

        assert await letters(plant) == []

    run(scenario())


def test_a_letter_that_a_consumer_can_apply_at_last_is_applied_once(plant, new_event, ended, run):
    """Effect and removal are one transaction, so two replays at a time count it once."""

    async def scenario() -> None:
        await plant.commit(new_event("good"), new_event("poison"))
        async with ended(plant.keep_publishing(), plant.keep_counting(Picky())):
            await until_passed(plant)
        kept = PostgresDeadLetters(plant.pool)
        [letter] = await letters(plant)
        failing, reapply = Reapply(kept, [Picky()]), Reapply(kept)

        assert (await failing(letter, False)).outcome == "rejected"
        assert (await reapply(letter, True)).outcome == "applied"  # a dry run
        assert await counts(plant) == {"good": 1}
        verdicts = await asyncio.gather(*(reapply(letter, False) for _ in range(4)))

        assert sorted(verdict.outcome for verdict in verdicts) == ["applied"] + ["gone"] * 3
        assert await counts(plant) == {"good": 1, "poison": 1}
        assert await letters(plant) == []

    run(scenario())
