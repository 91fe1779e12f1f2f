"""A consumer that counts each event once, through the loss of anything but Postgres."""

from __future__ import annotations

import asyncio
import random
from datetime import date

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from analytics_collector.adapters.redis.names import STREAM
from analytics_collector.adapters.redis.stream import ConsumerGroup
from analytics_collector.model import Cursor, Entry
from analytics_collector.worker import daily_counts
from analytics_collector.worker.daily_counts import DailyCounts, count_by_day
from analytics_collector.worker.run import active_alone, warn_of_eviction


def test_events_are_counted_by_project_day_and_name():
    """The rows come sorted, so that two writers never wait for each other in a circle."""
    text = (
        '[{"projectId": 2, "timestamp": "2026-01-01T23:59:59.9+00:00", "name": "b"},'
        '{"projectId": 1, "timestamp": "2026-01-02T00:00:00+00:00", "name": "a"},'
        '{"projectId": 2, "timestamp": "2026-01-01T00:00:00+00:00", "name": "b"}]'
    )

    first, second = Cursor(1, 1), Cursor(1, 2)
    counts = count_by_day([Entry(first, Cursor(0, 0), text), Entry(second, first, "[]")])

    assert counts == [(1, date(2026, 1, 2), "a", 1), (2, date(2026, 1, 1), "b", 2)]


def test_a_day_is_a_day_in_utc(plant, new_event, ended, run):
    """Wherever the client and the database are, the day is the same."""

    async def scenario() -> None:
        database = await plant.pool.fetchval("select current_database()")
        await plant.pool.execute(f"alter database {database} set timezone = 'America/New_York'")
        await plant.commit(
            new_event("evening", timestamp="2026-03-01T23:30:00-05:00"),
            new_event("morning", timestamp="2026-03-02T00:30:00+05:00"),
        )
        async with ended(plant.keep_publishing(), plant.keep_counting()):
            await plant.until_all_counted()

        records = await plant.pool.fetch("select name, day from daily_counts")
        assert {record["name"]: record["day"] for record in records} == {
            "evening": date(2026, 3, 2),
            "morning": date(2026, 3, 1),
        }

    run(scenario())


class DyingGroup(ConsumerGroup):
    """A consumer's end of the stream that is cut off at the moment of its acknowledgement."""

    async def acknowledge(self, entries: object) -> None:
        raise RedisConnectionError("cut off")


def test_a_consumer_that_dies_before_it_acknowledges_counts_once(plant, ended, run):
    """Effect and cursor are one transaction: the entry comes again and is known."""

    async def scenario() -> None:
        for _ in range(3):
            await plant.commit()
        async with plant.log() as log, plant.log() as other_log:
            await plant.publish_all(plant.publisher(other_log))
            dying = DyingGroup(plant.redis, daily_counts.NAME, "dying")
            with pytest.raises(RedisConnectionError):
                await plant.counter(log, group=dying).run()
        assert await plant.counted() == 3
        pending = await plant.redis.xpending(STREAM, daily_counts.NAME)
        assert pending["pending"] == 3

        await plant.commit()

        async def acknowledged() -> bool:
            pending = await plant.redis.xpending(STREAM, daily_counts.NAME)
            return bool(pending["pending"] == 0)

        async with ended(plant.keep_publishing(), plant.keep_counting()):
            await plant.until_all_counted()
            await plant.until(acknowledged)

    run(scenario())


def test_what_a_dead_consumer_held_is_counted_before_what_is_new(plant, ended, run):
    """Entries that were delivered to somebody who is gone are not passed over."""

    async def scenario() -> None:
        async with plant.log() as log:
            publisher = plant.publisher(log)
            for _ in range(120):
                await plant.commit()
            await plant.publish_all(publisher)
            dead = ConsumerGroup(plant.redis, daily_counts.NAME, "dead")
            await dead.ensure()
            assert len(await dead.read(110, 1)) == 110
            for _ in range(5):
                await plant.commit()
            await plant.publish_all(publisher)
        async with ended(plant.keep_counting()):
            await plant.until_all_counted()

    run(scenario())


class TooEarlyGroup(ConsumerGroup):
    """A consumer's end of the stream of one that looked for what was left before it was left."""

    async def claim_pending(self, count: int) -> list[Entry]:
        return []


def test_an_entry_that_a_dethroned_consumer_took_is_not_passed_over(plant, ended, run):
    """Who lost its lock without knowing takes an entry out of the group; the next one needs it."""

    async def scenario() -> None:
        async with plant.log() as log, plant.log() as other_log:
            for _ in range(40):
                await plant.commit()
            await plant.publish_all(plant.publisher(other_log))
            dethroned = ConsumerGroup(plant.redis, daily_counts.NAME, "dethroned")
            await dethroned.ensure()
            assert len(await dethroned.read(39, 1)) == 39
            group = TooEarlyGroup(plant.redis, daily_counts.NAME, "active")

            async with ended(asyncio.create_task(plant.counter(log, group=group).run())):
                await plant.until_all_counted()

    run(scenario())


@pytest.mark.parametrize("missing", [[0], [2], [1, 3], [0, 1, 2, 3]])
def test_what_the_stream_lacks_is_taken_from_the_log(plant, run, missing):
    """Whichever entries do not come, each commit is counted, and once."""

    async def scenario() -> None:
        for _ in range(5):
            await plant.commit()
        async with plant.log() as log:
            entries = await log.after(Cursor(0, 0), 10)
            some = [entry for place, entry in enumerate(entries) if place not in missing]

            applied = [await log.apply(DailyCounts(), some) for _ in range(6)]
            assert (sum(applied), applied[-1]) == (5, 0)
            assert await log.apply(DailyCounts(), entries) == 0

        assert await plant.counted() == 5

    run(scenario())


def test_a_commit_whose_events_are_gone_stops_nobody(plant, ended, run):
    """Events may be deleted before they are published."""

    async def scenario() -> None:
        await plant.commit()
        await plant.pool.execute("delete from events")
        plant.stored = 0
        await plant.commit()
        async with ended(plant.keep_publishing(), plant.keep_counting()):
            await plant.until_all_counted()

    run(scenario())


def test_an_entry_of_somebody_else_stops_nobody(plant, ended, run):
    """A stranger who writes into the stream costs no event."""

    async def scenario() -> None:
        async with ended(plant.keep_publishing(), plant.keep_counting()):
            await plant.commit()
            await plant.until_all_counted()
            await plant.redis.xadd(STREAM, {"hello": "world"}, id="18446744073709551-1")
            await plant.commit()
            await plant.until_all_counted()

    run(scenario())


def test_a_killed_connection_counts_nothing_twice(plant, ended, run):
    """Postgres may end our connections at any moment; the job begins again."""

    async def scenario() -> None:
        async with ended(plant.keep_publishing(), plant.keep_counting()):
            for n in range(40):
                await plant.commit()
                if n % 20 == 10:
                    await plant.kill_backends()
            await plant.until_all_counted()

    run(scenario())


def test_a_group_that_was_destroyed_is_made_again(plant, ended, run):
    """It begins at the beginning, and what was counted is not counted again."""

    async def scenario() -> None:
        async with ended(plant.keep_publishing(), plant.keep_counting()):
            for _ in range(5):
                await plant.commit()
            await plant.until_all_counted()
            await plant.redis.xgroup_destroy(STREAM, daily_counts.NAME)
            for _ in range(5):
                await plant.commit()
            await plant.until_all_counted()

    run(scenario())


@pytest.mark.parametrize("seed", range(2))
def test_a_redis_that_loses_its_memory_at_any_moment_loses_no_event(plant, ended, run, seed):
    """FLUSHALL in the middle of everything: each commit is counted, and once."""
    chance = random.Random(seed)

    async def scenario() -> None:
        async with ended(plant.keep_publishing(), plant.keep_counting()):
            for _ in range(3):
                for _ in range(chance.randrange(20, 60)):
                    await plant.commit()
                await plant.redis.flushall()
            await plant.commit()
            await plant.until_all_counted()

    run(scenario())


def test_of_two_workers_one_is_active_and_the_other_takes_over(plant, run):
    """A second worker stands by; it begins when the first is gone, and not before."""

    async def scenario() -> None:
        active: list[str] = []

        def worker(name: str) -> asyncio.Task[None]:
            async def job(log: object) -> None:
                active.append(name)
                await asyncio.Event().wait()

            return asyncio.create_task(active_alone(plant.settings, "role", job))

        async def is_active() -> bool:
            return bool(active)

        first, second = worker("first"), worker("second")
        await plant.until(is_active)
        winner, loser = (first, second) if active == ["first"] else (second, first)
        attempts = (
            "select count(*) from pg_stat_activity "
            "where application_name like '%worker' and datname = current_database()"
        )

        async def both_tried() -> bool:
            return bool(await plant.pool.fetchval(attempts) == 2)

        await plant.until(both_tried)
        assert len(active) == 1
        winner.cancel()

        async def taken_over() -> bool:
            return len(active) == 2

        await plant.until(taken_over)
        loser.cancel()
        await asyncio.gather(first, second, return_exceptions=True)

        assert sorted(active) == ["first", "second"]

    run(scenario())


@pytest.mark.parametrize(("policy", "lines"), [("allkeys-lru", 1), ("noeviction", 0)])
def test_a_redis_that_may_evict_the_stream_is_warned_of(plant, run, caplog, policy, lines):
    """It would throw away what consumers have not seen, and say nothing."""

    async def scenario() -> None:
        await plant.redis.config_set("maxmemory-policy", policy)
        try:
            await warn_of_eviction(plant.redis)
        finally:
            await plant.redis.config_set("maxmemory-policy", "noeviction")

    run(scenario())

    assert [record.policy for record in caplog.records] == [policy] * lines


def test_roles_do_not_wait_for_each_other(plant, run):
    """The publisher and each consumer have locks of their own; a lock ends with its connection."""

    async def scenario() -> None:
        async with plant.log() as one, plant.log() as two:
            assert await one.try_lock("publisher")
            assert await two.try_lock("daily_counts")
            assert not await two.try_lock("publisher")
            await plant.kill_backends()

        async with plant.log() as three:
            assert await three.try_lock("publisher")

    run(scenario())
