"""From the log in Postgres to the stream in Redis: everything, in order, whatever is lost there."""

from __future__ import annotations

import os
import signal

import asyncpg
import pytest
from redis.exceptions import OutOfMemoryError

from analytics_collector.adapters.redis.client import REDIS_FAILURES, connect
from analytics_collector.adapters.redis.names import STREAM
from analytics_collector.adapters.redis.stream import EventStream
from analytics_collector.model import Cursor, Entry
from analytics_collector.worker import publisher as publishing
from analytics_collector.worker.daily_counts import DailyCounts


def test_commits_are_published_in_order_with_all_their_events(plant, new_event, run):
    """One entry a commit, its events in the order in which they were stored."""

    async def scenario() -> None:
        for commit in range(40):
            await plant.commit(*(new_event(f"{commit}-{n}") for n in range(3)))
        async with plant.log() as log:
            await plant.publish_all(plant.publisher(log))

        commits = await plant.pool.fetch("select commit_id from commits order by commit_id")
        assert await plant.streamed() == [str(record["commit_id"]) for record in commits]
        _, fields = (await plant.redis.xrange(STREAM, count=1))[0]
        places = [fields["events"].index(f'"0-{n}"') for n in range(3)]
        assert places == sorted(places)

    run(scenario())


def test_a_transaction_that_began_early_and_commits_late_is_not_skipped(plant, new_event, run):
    """Nothing is published past a commit that can still come before it."""

    async def scenario() -> None:
        slow = await asyncpg.connect(plant.settings.database_url)
        async with plant.log() as log:
            publisher = plant.publisher(log)
            await plant.commit(new_event("before"))
            await plant.publish_all(publisher)
            transaction = slow.transaction()
            await transaction.start()
            await plant.commit(new_event("slow"), on=slow)  # has its ids, is not visible
            await plant.commit(new_event("fast"))
            await plant.publish_all(publisher)

            assert len(await plant.streamed()) == 1

            await transaction.commit()
            await plant.publish_all(publisher)

        await slow.close()
        entries = [fields["events"] for _, fields in await plant.redis.xrange(STREAM)]
        assert ['"slow"' in text for text in entries] == [False, True, False]
        assert '"fast"' in entries[2]

    run(scenario())


def test_a_commit_with_a_low_id_in_a_late_transaction_is_not_skipped(plant, new_event, run):
    """The id of a commit says nothing of its place in the log; the transaction does."""

    async def scenario() -> None:
        async with plant.log() as log:
            publisher = plant.publisher(log)
            low = await plant.pool.fetchval("select nextval('commit_ids')")
            await plant.commit(new_event())
            await plant.publish_all(publisher)
            await plant.pool.execute(
                "insert into commits (commit_id, xid, event_count) "
                "values ($1, pg_current_xact_id(), 0)",
                low,
            )
            await plant.publish_all(publisher)

        assert await plant.streamed() == [str(low + 1), str(low)]

    run(scenario())


def test_a_flushed_stream_is_filled_again_without_a_new_commit(plant, run):
    """What a consumer has not had yet comes back, even if nothing else happens."""

    async def scenario() -> None:
        async with plant.log() as log:
            publisher = plant.publisher(log)
            for _ in range(3):
                await plant.commit()
            await plant.publish_all(publisher)
            before = await plant.streamed()
            await plant.redis.flushall()
            await plant.publish_all(publisher)

            assert await plant.streamed() == before
            assert len(before) == 3

    run(scenario())


def test_a_stream_deleted_alone_is_filled_again(plant, run):
    """A stream without entries whose tail says otherwise is not taken for whole."""

    async def scenario() -> None:
        async with plant.log() as log:
            publisher = plant.publisher(log)
            for _ in range(3):
                await plant.commit()
            await plant.publish_all(publisher)
            await plant.redis.delete(STREAM)
            await plant.commit()
            await plant.publish_all(publisher)

            assert len(await plant.streamed()) == 4

    run(scenario())


def test_a_publisher_goes_on_where_the_last_one_ended(plant, run):
    """A restart neither repeats nor skips an entry."""

    async def scenario() -> None:
        for _ in range(3):
            await plant.commit()
            async with plant.log() as log:
                await plant.publish_all(plant.publisher(log))

        assert len(await plant.streamed()) == 3

    run(scenario())


def test_a_publisher_that_was_overtaken_appends_nothing_twice(plant, run):
    """Two that both believe to be the only one still make one stream."""

    async def scenario() -> None:
        async with plant.log() as log, plant.log() as other_log:
            first, second = plant.publisher(log), plant.publisher(other_log)
            for n in range(6):
                await plant.commit()
                await plant.publish_all((first, second)[n % 2])

        streamed = await plant.streamed()
        assert len(streamed) == len(set(streamed)) == 6

    run(scenario())


def test_a_database_that_was_restored_elsewhere_is_published_on(plant, ended, run):
    """Its commits carry transaction ids that the new cluster has not reached yet."""

    async def scenario() -> None:
        for _ in range(3):
            await plant.commit()
        await plant.pool.execute(
            "update commits set xid = (xid::text::bigint + 1000000)::text::xid8"
        )
        async with ended(plant.keep_publishing(), plant.keep_counting()):
            await plant.until_all_counted()
            for _ in range(3):
                await plant.commit()
            await plant.until_all_counted()

    run(scenario())


@pytest.mark.parametrize("seen", [1, 2, 3, 4])
def test_a_consumer_is_where_it_was_when_the_dump_was_made(plant, ended, run, seen):
    """Transactions commit out of the order of their ids, and the dump may fall in between."""

    async def scenario() -> None:
        for _ in range(4):
            await plant.commit()
        # The order of the log is 2, 4, 1, 3.
        for commit_id, xid in ((2, 10), (4, 20), (1, 30), (3, 40)):
            await plant.pool.execute(
                "update commits set xid = $2::xid8 where commit_id = $1", commit_id, xid
            )
        async with plant.log() as log:
            entries = await log.after(Cursor(0, 0), seen)
            await log.apply(DailyCounts(), entries)
        far = "update {} set xid = (xid::text::bigint + 1000000)::text::xid8 where commit_id > 0"
        await plant.pool.execute(far.format("commits"))
        await plant.pool.execute(far.format("consumers"))
        await plant.commit()
        async with ended(plant.keep_publishing(), plant.keep_counting()):
            await plant.until_all_counted()

    run(scenario())


def test_a_stream_of_another_database_is_begun_anew(plant, ended, run):
    """Two installations, or one whose database was replaced: its tail is no place of ours."""

    async def scenario() -> None:
        for _ in range(3):
            await plant.commit()
        foreign = Entry(Cursor(1, 999), Cursor(1, 998), "[]")
        assert await EventStream(plant.redis).append(None, [foreign])
        async with ended(plant.keep_publishing(), plant.keep_counting()):
            await plant.until_all_counted()

            async def is_begun_anew() -> bool:
                return "999" not in await plant.streamed()

            await plant.until(is_begun_anew)

    run(scenario())


@pytest.fixture
def small_nodes(plant, run):
    """Let Valkey trim in steps of two entries rather than of a hundred."""
    run(plant.redis.config_set("stream-node-max-entries", 2))
    yield
    run(plant.redis.config_set("stream-node-max-entries", 100))


def test_what_a_consumer_has_not_had_is_never_trimmed(plant, run, monkeypatch, small_nodes):
    """However full the stream is, the slowest of all finds what comes after its place (RD-10)."""
    monkeypatch.setattr(publishing, "_TRIM_EVERY", 1)
    monkeypatch.setattr(publishing, "_KEEP_ENTRIES", 0)

    async def scenario() -> None:
        async with plant.log() as log:
            publisher = plant.publisher(log)
            lengths = []
            for _ in range(4):
                for _ in range(10):
                    await plant.commit()
                await plant.publish_all(publisher)
                cursor = await log.slowest_cursor()
                unseen = await log.after(cursor, 100)
                streamed = await plant.streamed()
                wanted = [str(entry.cursor.commit_id) for entry in unseen]
                assert streamed[-len(wanted) :] == wanted
                lengths.append(len(streamed))
                await log.apply(DailyCounts(), unseen[:7])

            assert lengths[-1] < 40 - 14  # something was trimmed at all

    run(scenario())


def test_a_full_redis_makes_room_of_what_all_have_passed(plant, run, new_event):
    """Else nothing would ever be published again, though nobody needs what fills it."""

    async def scenario() -> None:
        async with plant.log() as log:
            publisher = plant.publisher(log)
            large = {"text": "x" * 90_000}
            for _ in range(20):
                await plant.commit(new_event(properties=large))
            await plant.publish_all(publisher)
            await log.apply(DailyCounts(), await log.after(await log.slowest_cursor(), 100))
            used = (await plant.redis.info("memory"))["used_memory"]
            await plant.redis.config_set("maxmemory", used + 20_000)
            try:
                await plant.commit(new_event(properties=large))
                with pytest.raises(OutOfMemoryError):
                    await plant.publish_all(publisher)
                await plant.publish_all(publisher)
            finally:
                await plant.redis.config_set("maxmemory", 0)
            last = await plant.pool.fetchval("select max(commit_id) from commits")
            assert (await plant.streamed())[-1] == str(last)

    run(scenario())


def test_an_append_that_was_carried_out_unheard_is_not_made_twice(plant, ended, run):
    """Redis stands still for longer than we wait for it, and then does what it was told (RD-07)."""

    async def scenario() -> None:
        pid = (await plant.redis.info("server"))["process_id"]
        patient = plant.redis
        plant.redis = connect(plant.settings.redis_url)
        plant.redis.connection_pool.connection_kwargs["socket_timeout"] = 0.2
        async with plant.log() as log:
            publisher = plant.publisher(log)
            await plant.commit()
            await plant.publish_all(publisher)
            for _ in range(3):
                await plant.commit()
            os.kill(pid, signal.SIGSTOP)
            try:
                with pytest.raises(REDIS_FAILURES):
                    await publisher.publish_some()
            finally:
                os.kill(pid, signal.SIGCONT)

            async def is_carried_out() -> bool:
                return await patient.xlen(STREAM) == 4

            await plant.until(is_carried_out)
        await plant.redis.aclose()
        plant.redis = patient
        async with ended(plant.keep_publishing(), plant.keep_counting()):
            await plant.until_all_counted()

        streamed = await plant.streamed()
        assert len(streamed) == len(set(streamed)) == 4

    run(scenario())
