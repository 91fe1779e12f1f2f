"""What is removed in the background, and what must never be."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from analytics_collector.adapters.postgres.dead_letters import PostgresDeadLetters
from analytics_collector.adapters.redis.stream import EventStream
from analytics_collector.model import DeadLetter, LetterFilter
from analytics_collector.worker.housekeeping import Housekeeping


def letter(project_id: int = 1, name: str = "e", stage: str = "validate") -> DeadLetter:
    now = datetime.now(UTC)
    return DeadLetter(project_id, stage, "MISSING_NAME", None, name, 1, None, now, None, "{}", True)


def keeper(plant: Any, log: Any, **limits: Any) -> Housekeeping:
    defaults = {"max_letters": 3, "letter_days": 30, "commit_days": 7}
    return Housekeeping(log, EventStream(plant.redis), **(defaults | limits))


async def names(plant: Any) -> list[tuple[int, str]]:
    found = await PostgresDeadLetters(plant.pool).newest(LetterFilter(), 100)
    return sorted((kept.project_id, kept.name) for kept in found)


async def commit_ids(plant: Any) -> list[int]:
    records = await plant.pool.fetch("select commit_id from commits order by xid, commit_id")
    return [record["commit_id"] for record in records]


async def count_all(plant: Any, ended: Any) -> None:
    """Publish and count everything, and let Redis know of it."""

    async def acknowledged() -> bool:
        pending = await plant.redis.xpending("analytics:events", "daily_counts")
        return bool(pending["pending"] == 0)

    async with ended(plant.keep_publishing(), plant.keep_counting()):
        await plant.until_all_counted()
        await plant.until(acknowledged)


async def grow_old(plant: Any, days: int = 8) -> None:
    await plant.pool.execute(
        "update commits set committed_at = committed_at - make_interval(days => $1)", days
    )


def test_each_project_keeps_its_newest_letters(plant, run):
    """One that has too many does not push out those of another."""

    async def scenario() -> None:
        kept = PostgresDeadLetters(plant.pool)
        await kept.add([letter(1, f"a{n}") for n in range(5)] + [letter(2, "b")])
        async with plant.log() as log:
            await keeper(plant, log).clean()

        assert await names(plant) == [(1, "a2"), (1, "a3"), (1, "a4"), (2, "b")]

    run(scenario())


def test_refused_events_never_push_out_what_a_consumer_could_not_apply(plant, run):
    """Anybody with a key can send nonsense; what was acknowledged has a bound of its own."""

    async def scenario() -> None:
        kept = PostgresDeadLetters(plant.pool)
        await kept.add([letter(1, "acknowledged", "consumer:daily_counts")])
        await kept.add([letter(1, f"a{n}") for n in range(5)])
        async with plant.log() as log:
            await keeper(plant, log).clean()

        assert (1, "acknowledged") in await names(plant)
        assert len(await names(plant)) == 4

    run(scenario())


def test_letters_expire(plant, run):
    """After the days that are set, and not before."""

    async def scenario() -> None:
        await PostgresDeadLetters(plant.pool).add([letter(1, "old"), letter(1, "new")])
        age = "update dead_letters set noted_at = now() - interval '{}' where name = '{}'"
        await plant.pool.execute(age.format("30 days 1 hour", "old"))
        await plant.pool.execute(age.format("29 days 23 hours", "new"))
        async with plant.log() as log:
            await keeper(plant, log).clean()

        assert await names(plant) == [(1, "new")]

    run(scenario())


def test_old_commits_go_that_everybody_has_passed(plant, ended, run):
    """The last one stays: by it the publisher and a restored database are known again."""

    async def scenario() -> None:
        for _ in range(5):
            await plant.commit()
        await count_all(plant, ended)
        last = (await commit_ids(plant))[-1]
        await grow_old(plant, 6)
        async with plant.log() as log:
            await keeper(plant, log).clean()
            assert len(await commit_ids(plant)) == 5
            await grow_old(plant, 2)
            await keeper(plant, log, commit_days=0).clean()
            assert len(await commit_ids(plant)) == 5
            await keeper(plant, log).clean()
            assert await commit_ids(plant) == [last]
            tail = await EventStream(plant.redis).tail()
            assert await log.knows(tail)

        await plant.commit()
        async with ended(plant.keep_publishing(), plant.keep_counting()):
            await plant.until_all_counted()
        assert await plant.streamed() == [str(number) for number in range(1, last + 2)]

    run(scenario())


def test_what_a_consumer_has_not_seen_stays(plant, ended, run):
    """However old it is."""

    async def scenario() -> None:
        for _ in range(5):
            await plant.commit()
        async with plant.log() as log:
            await plant.publish_all(plant.publisher(log))
            await grow_old(plant)
            await keeper(plant, log).clean()
            assert len(await commit_ids(plant)) == 5

        async with ended(plant.keep_publishing(), plant.keep_counting()):
            await plant.until_all_counted()

    run(scenario())


def test_what_is_not_published_yet_stays(plant, ended, run):
    """A consumer may be ahead of the stream, since it takes what is missing from Postgres."""

    async def scenario() -> None:
        await plant.commit()
        async with ended(plant.keep_publishing(), plant.keep_counting()):
            await plant.until_all_counted()
        for _ in range(4):
            await plant.commit()
        await plant.pool.execute(
            "update consumers set (xid, commit_id) = "
            "(select xid, commit_id from commits order by xid desc limit 1)"
        )
        await grow_old(plant)
        await plant.redis.xgroup_destroy("analytics:events", "daily_counts")
        async with plant.log() as log:
            await keeper(plant, log).clean()
            assert len(await commit_ids(plant)) == 5
            publisher = plant.publisher(log)
            await plant.publish_all(publisher)

        assert len(await plant.streamed()) == 5

    run(scenario())


def test_what_another_group_of_the_stream_has_not_passed_stays(plant, ended, run):
    """Consumers of others are asked of Redis."""

    async def scenario() -> None:
        for _ in range(5):
            await plant.commit()
        async with ended(plant.keep_publishing(), plant.keep_counting()):
            await plant.until_all_counted()
        await plant.redis.xgroup_create("analytics:events", "theirs", id="0")
        await plant.redis.xreadgroup("theirs", "me", {"analytics:events": ">"}, count=3)
        await grow_old(plant)
        async with plant.log() as log:
            await keeper(plant, log).clean()

        assert len(await commit_ids(plant)) == 5

    run(scenario())


@pytest.mark.parametrize("redis_is_empty", [False, True])
def test_after_a_purge_a_lost_stream_and_a_restored_database_are_found_again(
    plant, ended, run, redis_is_empty
):
    """What is left of the log is enough for both."""

    async def scenario() -> None:
        for _ in range(5):
            await plant.commit()
        await count_all(plant, ended)
        await grow_old(plant)
        async with plant.log() as log:
            await keeper(plant, log).clean()
        # As a dump from a cluster whose transactions had counted much further.
        far = "update {} set xid = (xid::text::bigint + 1000000000)::text::xid8"
        await plant.pool.execute(far.format("commits"))
        await plant.pool.execute(far.format("consumers"))
        if redis_is_empty:
            await plant.redis.flushall()
        async with ended(plant.keep_publishing(), plant.keep_counting()):
            for _ in range(3):
                await plant.commit()
            await plant.until_all_counted()

    run(scenario())
