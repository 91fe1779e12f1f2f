"""The spools: what was appended is there after any end of the process, in order, within bounds."""

from __future__ import annotations

import asyncio
import resource
import signal
import sqlite3
import subprocess
import sys
import textwrap
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from analytics_collector.adapters.redis.client import connect
from analytics_collector.adapters.redis.spool import RedisSpool
from analytics_collector.adapters.spool.rows import decode_rows, encode_rows
from analytics_collector.adapters.spool.sqlite import SqliteSpool, spool_name
from analytics_collector.errors import ConfigurationError, StoreUnavailable
from analytics_collector.interfaces import Spool, SpoolFull
from analytics_collector.model import EventRow

NAME = "events-test"
ROOMY = 10_000_000
MUCH = (1000, 1_000_000)


def event(name: str = "e", **members: object) -> EventRow:
    now = datetime.now(UTC)
    values: dict[str, object] = {
        "project_id": 1,
        "message_id": str(uuid.uuid4()),
        "timestamp": now,
        "received_at": now,
        "client_timestamp": None,
        "timestamp_clamped": False,
        "type": "track",
        "name": name,
        "user_id": "u-1",
        "anonymous_id": None,
        "session_id": None,
        "group_id": None,
        "previous_id": None,
        "properties": '{"n": 1}',
        "traits": None,
        "context": "{}",
        "extra": None,
    }
    return EventRow(**(values | members))  # type: ignore[arg-type]


Open = Callable[..., AsyncIterator[Spool]]


@pytest.fixture(params=["sqlite", "redis"])
def opened(request, tmp_path, servers):
    """Return a context that opens a spool; the same one each time."""
    name = f"{NAME}-{uuid.uuid4().hex}"

    @asynccontextmanager
    async def open_spool(max_bytes: int = ROOMY) -> AsyncIterator[Spool]:
        if request.param == "sqlite":
            spool = SqliteSpool(tmp_path / "spool", name, max_bytes)
            await spool.open()
            yield spool
            await spool.close()
            return
        redis = connect(servers[1])
        in_redis = RedisSpool(redis, name, max_bytes)
        await in_redis.open()
        yield in_redis
        await in_redis.close()
        await redis.aclose()

    return open_spool


async def drain(spool: Spool, limits: tuple[int, int] = MUCH) -> list[str]:
    """Return the names of all that waits, and remove it."""
    names = []
    while found := await spool.oldest(*limits):
        names += [row.name for row in found.rows]
        await spool.remove(found.until, [])
    return names


def test_what_goes_in_comes_out_unchanged():
    """Times to the microsecond, nothing at all, and any text."""
    row = event(
        "naïve \u2028 \0",
        timestamp=datetime(2026, 11, 1, 1, 2, 3, 4, UTC),
        client_timestamp=datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=1),
        traits='{"a": "\\u0000"}',
        enrichment='{"geo": null}',
    )

    assert decode_rows(encode_rows([row, event()]))[0] == row


def test_rows_of_a_version_that_knew_less_can_still_be_read():
    """What waits on the disk survives an upgrade that has added a member."""
    row = event()
    old = encode_rows([row[:-1]])  # type: ignore[list-item]

    assert decode_rows(old) == [row]


def test_events_come_out_in_the_order_in_which_they_went_in(opened, run):
    """First in, first out, in groups as large as asked for and no larger."""

    async def scenario() -> None:
        async with opened() as spool:
            assert spool.is_empty
            for n in range(20):
                await spool.append([event(f"{n}-a"), event(f"{n}-b")])
            found = await spool.oldest(7, 1_000_000)

            assert not spool.is_empty
            assert found is not None
            assert [row.name for row in found.rows] == ["0-a", "0-b", "1-a", "1-b", "2-a", "2-b"]
            names = await drain(spool)
            await spool.state()
            assert names == [f"{n}-{x}" for n in range(20) for x in "ab"]
            assert spool.is_empty

    run(scenario())


def test_a_group_larger_than_asked_for_comes_out_whole(opened, run):
    """A record is never torn, however large it is."""

    async def scenario() -> None:
        async with opened() as spool:
            await spool.append([event(str(n)) for n in range(50)])

            assert await drain(spool, (10, 10)) == [str(n) for n in range(50)]

    run(scenario())


def test_what_waits_is_there_after_a_restart(opened, run):
    """Closed or not: the next one that opens it has it all, and goes on behind it."""

    async def scenario() -> None:
        async with opened() as spool:
            await spool.append([event("before")])
        async with opened() as spool:
            assert not spool.is_empty
            await spool.append([event("after")])

            assert await drain(spool) == ["before", "after"]

    run(scenario())


def test_it_tells_how_much_waits_and_since_when(opened, run):
    """Events, bytes and age are what an operator looks at, and all are zero at the end."""

    async def scenario() -> None:
        async with opened() as spool:
            before = datetime.now(UTC).timestamp()
            await spool.append([event(), event()])
            state = await spool.state()
            await drain(spool)
            empty = await spool.state()

        assert (state.events, state.max_bytes, state.refused) == (2, ROOMY, 0)
        assert state.bytes > 200
        assert before <= state.oldest_at <= datetime.now(UTC).timestamp()
        assert (empty.events, empty.bytes, empty.oldest_at) == (0, 0, None)

    run(scenario())


def test_a_full_spool_takes_nothing_and_loses_nothing(opened, run):
    """It is bounded; what it has acknowledged is never thrown away to make room."""

    async def scenario() -> None:
        async with opened(max_bytes=5_000) as spool:
            taken = 0
            with pytest.raises(SpoolFull):
                while taken < 1_000:
                    await spool.append([event(str(taken))])
                    taken += 1
            state = await spool.state()
            first = await spool.oldest(1, 1)
            await spool.remove(first.until, [])
            await spool.append([event("again")])

            assert state.bytes <= 5_000
            assert state.is_full
            assert taken > 10
            assert await drain(spool) == [*(str(n) for n in range(1, taken)), "again"]

    run(scenario())


def test_who_removes_late_removes_nothing_that_came_later(opened, run):
    """Two drainers, one of them slow: what it has not brought home stays."""

    async def scenario() -> None:
        async with opened() as slow, opened() as quick:
            await slow.append([event("first")])
            seen = await slow.oldest(*MUCH)
            assert await drain(quick) == ["first"]
            await quick.append([event("second")])
            await slow.remove(seen.until, [])

            assert await drain(quick) == ["second"]

    run(scenario())


def test_of_those_that_share_it_one_drains(opened, run):
    """The others leave it alone until that one is gone."""

    async def scenario() -> None:
        async with opened() as other, opened() as leader:
            leads = [await leader.lead(), await other.lead(), await leader.lead()]
            await leader.follow()
            follows = await other.lead()

        assert leads == [True, False, True]
        assert follows

    run(scenario())


def test_what_the_store_refuses_is_kept_apart(opened, run):
    """It was acknowledged, so it may not vanish; and it may not block what comes behind it."""

    async def scenario() -> None:
        async with opened() as spool:
            poison = event("poison")
            await spool.append([event(), poison])
            found = await spool.oldest(*MUCH)
            await spool.remove(found.until, [poison])
            state = await spool.state()

        assert (state.events, state.refused) == (0, 1)
        assert state.bytes == len(encode_rows([poison]))

    run(scenario())


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([(*event("newer"), "member"), event("beside")], id="a member more"),
        pytest.param([("damaged",)], id="members missing"),
        pytest.param([event("e", timestamp="at noon")], id="another type"),
    ],
)
def test_what_can_not_be_read_is_kept_apart_and_blocks_nothing(opened, run, caplog, rows):
    """What is before it comes out first, and what is behind it after."""

    async def scenario() -> None:
        async with opened() as spool:
            for group in ([event("before")], rows, rows, [event("behind")]):
                await spool.append(group)
            found = await spool.oldest(*MUCH)
            untouched = await spool.state()
            names = await drain(spool)
            state = await spool.state()

            assert [row.name for row in found.rows] == ["before"]
            assert untouched.refused == 0
            assert names == ["before", "behind"]
            assert (state.events, state.refused) == (0, 2 * len(rows))
            assert state.bytes == 2 * len(encode_rows(rows))
            assert spool.is_empty

    run(scenario())
    assert caplog.text.count("can't be read") == 2


def test_a_spool_of_what_can_not_be_read_alone_is_empty_in_the_end(opened, run):
    """Nothing comes home, and nobody asks again."""

    async def scenario() -> None:
        async with opened() as spool:
            for _ in range(20):
                await spool.append([("damaged",)])

            assert await spool.oldest(*MUCH) is None
            state = await spool.state()
            assert (state.events, state.refused) == (0, 20)
            assert spool.is_empty

    run(scenario())


@pytest.fixture
def lossy(servers):
    """Return a context with a spool in Redis, and what makes that lose its totals."""
    name = f"{NAME}-{uuid.uuid4().hex}"

    @asynccontextmanager
    async def open_spool() -> AsyncIterator[tuple[RedisSpool, Callable[[], Awaitable[None]]]]:
        redis = connect(servers[1])
        spool = RedisSpool(redis, name, ROOMY)

        async def lose() -> None:
            assert await redis.delete(*await redis.keys(f"*{name}*:totals"))

        await spool.open()
        try:
            yield spool, lose
        finally:
            await redis.delete(*await redis.keys(f"*{name}*"), name)
            await redis.aclose()

    return open_spool


def test_who_removes_nothing_since_the_totals_are_lost_hears_it(lossy, run):
    """Else the same group would be brought home for ever, without a pause; the next is removed."""

    async def scenario() -> None:
        async with lossy() as (spool, lose):
            await spool.append([event("first")])
            await spool.append([event("second")])
            seen = await spool.oldest(*MUCH)
            await lose()
            with pytest.raises(StoreUnavailable, match="epoch"):
                await spool.remove(seen.until, [])

            assert await drain(spool) == ["first", "second"]
            assert (await spool.state()).events == 0

    run(scenario())


def test_totals_that_were_lost_are_counted_anew_at_the_start(lossy, run):
    """The records count, and what was kept apart; how much waits is told as before."""

    async def scenario() -> None:
        async with lossy() as (spool, lose):
            await spool.append([event("removed"), event("poison")])
            found = await spool.oldest(*MUCH)
            await spool.remove(found.until, found.rows[1:])
            await spool.append([event("a"), event("b")])
            await spool.append([event("c")])
            before = await spool.state()
            await lose()
            await spool.open()

            assert await spool.state() == before
            assert await drain(spool) == ["a", "b", "c"]

    run(scenario())


def test_numbers_go_on_when_the_totals_were_lost(lossy, run):
    """Else who removes old records would take new ones with them that nobody has brought home."""

    async def scenario() -> None:
        async with lossy() as (spool, lose):
            for name in "ab":
                await spool.append([event(name)])
            await lose()
            await spool.append([event("c")])
            found = await spool.oldest(2, ROOMY)
            await spool.append([event("d")])
            await spool.remove(found.until, [])

            assert [row.name for row in found.rows] == ["a", "b"]
            assert await drain(spool) == ["c", "d"]

    run(scenario())


def test_a_redis_that_was_emptied_numbers_anew_and_a_late_removal_does_no_harm(servers, run):
    """The numbers begin again at one; what an earlier epoch has seen says nothing of this one."""

    async def scenario() -> None:
        redis = connect(servers[1])
        spool, after = (RedisSpool(redis, NAME, ROOMY) for _ in range(2))
        await spool.append([event("lost")])
        seen = await spool.oldest(*MUCH)
        await redis.delete(*await redis.keys(f"*{NAME}*"))
        await after.append([event("new")])
        with pytest.raises(StoreUnavailable, match="epoch"):
            await spool.remove(seen.until, [])

        assert await drain(after) == ["new"]
        await redis.delete(*await redis.keys(f"*{NAME}*"))
        await redis.aclose()

    run(scenario())


def test_a_redis_without_an_append_only_file_is_refused(servers, run):
    """It would lose at every restart what was acknowledged from it."""

    async def scenario() -> None:
        redis = connect(servers[1])
        await redis.config_set("appendonly", "no")
        try:
            spool = RedisSpool(redis, NAME, ROOMY)
            with pytest.raises(ConfigurationError, match="appendonly yes"):
                await spool.open()
            with pytest.raises(StoreUnavailable):
                await spool.append([event()])
        finally:
            await redis.config_set("appendonly", "yes")
            await redis.delete(*await redis.keys(f"*{NAME}*"))
            await redis.aclose()

    run(scenario())


def test_a_redis_that_does_not_sync_acknowledges_nothing(servers, run):
    """To have it in memory, or with the kernel, is not enough for a 202."""

    async def scenario() -> None:
        redis = connect(servers[1])
        await redis.config_set("appendfsync", "no")
        try:
            spool = RedisSpool(redis, NAME, ROOMY)
            spool.sync_timeout_ms = 100
            with pytest.raises(StoreUnavailable, match="sync"):
                await spool.append([event()])
        finally:
            await redis.config_set("appendfsync", "everysec")
            await redis.delete(*await redis.keys(f"*{NAME}*"))
            await redis.aclose()

    run(scenario())


def test_processes_that_share_it_see_at_once_that_something_waits(tmp_path, run):
    """Else an event could overtake one that another process of the host has acknowledged."""

    async def scenario() -> None:
        one, other = (SqliteSpool(tmp_path, NAME, ROOMY) for _ in range(2))
        await one.open()
        await other.open()
        await one.append([event()])
        seen = [other.is_empty]
        await drain(one)
        seen.append(other.is_empty)
        await one.close()
        await other.close()

        assert seen == [False, True]

    run(scenario())


def test_the_mark_of_an_append_that_failed_goes_away(tmp_path, run):
    """A mark without records must not keep the events in the spool for ever."""

    async def scenario() -> None:
        spool = SqliteSpool(tmp_path, NAME, ROOMY)
        await spool.open()
        (tmp_path / f"{NAME}.pending").touch()
        assert not spool.is_empty
        await spool.remove("0", [])

        assert spool.is_empty
        await spool.close()

    run(scenario())


def test_after_a_power_cut_without_the_mark_it_is_known_what_waits(tmp_path, run):
    """The mark is only a note; the records count."""

    async def scenario() -> None:
        spool = SqliteSpool(tmp_path, NAME, ROOMY)
        await spool.open()
        await spool.append([event("kept")])
        await spool.close()
        (tmp_path / f"{NAME}.pending").unlink()
        again = SqliteSpool(tmp_path, NAME, ROOMY)
        await again.open()

        assert not again.is_empty
        await again.close()

    run(scenario())


def test_a_file_that_is_no_database_is_set_aside(tmp_path, run, caplog):
    """Events have a place again, and what was there is not thrown away."""

    async def scenario() -> None:
        (tmp_path / f"{NAME}.sqlite").write_bytes(b"no database" * 1000)
        spool = SqliteSpool(tmp_path, NAME, ROOMY)
        await spool.open()
        await spool.append([event("new")])

        assert await drain(spool) == ["new"]
        await spool.close()

    run(scenario())
    assert [path.read_bytes()[:11] for path in tmp_path.glob("*.broken-*")] == [b"no database"]
    assert "set aside" in caplog.text


def test_events_of_another_database_are_told_and_left_alone(tmp_path, run, caplog):
    """Whoever moves to another database hears what waits for the former one."""

    async def scenario() -> None:
        other = SqliteSpool(tmp_path, "events-other", ROOMY)
        await other.open()
        await other.append([event(), event()])
        await other.close()
        spool = SqliteSpool(tmp_path, NAME, ROOMY)
        await spool.open()

        assert await drain(spool) == []
        await spool.close()

    run(scenario())
    assert "another database" in caplog.text


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("postgresql://a:b@db/events", "postgresql://c:d@db/events", True),
        ("postgresql://a:b@db/events", "postgresql://a:b@db/others", False),
        ("postgresql://a:b@db/events", "postgresql://a:b@db2/events", False),
        ("postgresql://a@/e?host=/x", "postgresql://b@/e?host=/x&sslmode=off", True),
        ("postgresql://a@/e?host=/x", "postgresql://a@/e?host=/y", False),
    ],
)
def test_a_spool_is_of_one_database_whoever_connects_to_it(one, other, same):
    """Another password is no other database; another host or name is."""
    assert (spool_name(one) == spool_name(other)) is same


def test_a_place_that_cannot_be_had_is_told_with_the_setting(tmp_path, run):
    """At the start, where somebody looks, and not with the first event."""
    (tmp_path / "file").touch()

    with pytest.raises(ConfigurationError, match="ANALYTICS_SPOOL"):
        run(SqliteSpool(tmp_path / "file", NAME, ROOMY).open())


def test_it_is_for_its_owner_alone(tmp_path, run):
    """Events are personal data: nobody else on the host may read them."""

    async def scenario() -> None:
        spool = SqliteSpool(tmp_path / "spool", NAME, ROOMY)
        await spool.open()
        await spool.append([event()])
        modes = {path.stat().st_mode & 0o077 for path in (tmp_path / "spool").iterdir()}
        modes.add((tmp_path / "spool").stat().st_mode & 0o077)
        await spool.close()

        assert modes == {0}

    run(scenario())


def test_an_empty_spool_gives_the_disk_back(tmp_path, run):
    """What an outage has filled does not stay taken for ever."""

    async def scenario() -> None:
        spool = SqliteSpool(tmp_path, NAME, ROOMY)
        await spool.open()
        for _ in range(20):
            await spool.append([event(properties='"' + "x" * 200_000 + '"')])
        full = sum(path.stat().st_size for path in tmp_path.iterdir())
        await drain(spool)
        empty = sum(path.stat().st_size for path in tmp_path.iterdir())
        await spool.close()

        assert full > 4_000_000
        assert empty < 200_000

    run(scenario())


def test_a_disk_without_room_refuses_and_goes_on_when_there_is_some(tmp_path, run):
    """What was acknowledged before is whole, and nothing that was not comes back as if it were."""

    async def scenario() -> None:
        spool = SqliteSpool(tmp_path, NAME, ROOMY)
        await spool.open()
        await spool.append([event("before")])
        largest = max(path.stat().st_size for path in tmp_path.iterdir())
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest + 8192, limits[1]))
        try:
            with pytest.raises(StoreUnavailable):
                await spool.append([event("large", properties='"' + "x" * 200_000 + '"')])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        await spool.append([event("after")])

        assert await drain(spool) == ["before", "after"]
        await spool.close()

    run(scenario())


KILLED = """
    import asyncio, sys
    from pathlib import Path
    sys.path.insert(0, {here!r})
    from test_spool import NAME, ROOMY, SqliteSpool, event

    async def main():
        spool = SqliteSpool(Path({folder!r}), NAME, ROOMY)
        await spool.open()
        number = 0
        while True:
            await spool.append([event(sys.argv[1] + "-" + str(number))])
            print(number, flush=True)
            number += 1

    asyncio.run(main())
"""


def test_kill_9_at_any_instant_loses_nothing_that_was_acknowledged(tmp_path, run, eventually):
    """Three processes on one file, killed in the middle of their writes, round after round."""
    program = textwrap.dedent(KILLED.format(here=str(Path(__file__).parent), folder=str(tmp_path)))
    acknowledged: dict[str, int] = {}
    for round_number in range(3):
        outputs = {f"{round_number}.{n}": tmp_path / f"{round_number}.{n}.out" for n in range(3)}
        processes = []
        for who, path in outputs.items():
            with path.open("wb") as out:
                command = [sys.executable, "-c", program, who]
                processes.append(subprocess.Popen(command, stdout=out))
        eventually(
            lambda paths=outputs: all(p.read_bytes().count(b"\n") > 9 for p in paths.values())
        )
        for process in processes:
            process.send_signal(signal.SIGKILL)
            process.wait()
        for who, path in outputs.items():
            acknowledged[who] = path.read_bytes().count(b"\n")

    async def drained() -> list[str]:
        spool = SqliteSpool(tmp_path, NAME, ROOMY)
        await spool.open()
        names = await drain(spool)
        await spool.close()
        return names

    names = run(drained())
    for who, count in acknowledged.items():
        own = [int(name.split("-")[1]) for name in names if name.startswith(f"{who}-")]
        assert own == list(range(len(own)))
        assert count <= len(own) <= count + 1


def test_the_events_are_synced_before_they_are_acknowledged(tmp_path, run):
    """WAL alone survives a kill; only FULL survives a power cut, so it must be set."""

    async def scenario() -> None:
        spool = SqliteSpool(tmp_path, NAME, ROOMY)
        await spool.open()
        connection = spool._file._connection  # nothing public tells
        modes = await spool._do(
            lambda: [connection.execute(f"pragma {name}").fetchone()[0] for name in PRAGMAS]
        )
        await spool.close()

        assert modes == ["wal", 2]

    run(scenario())


PRAGMAS = ("journal_mode", "synchronous")


def test_the_event_loop_goes_on_while_the_disk_works(tmp_path, run):
    """A disk that hangs holds up those who wait for it, and nobody else."""

    async def scenario() -> None:
        spool = SqliteSpool(tmp_path, NAME, ROOMY)
        await spool.open()
        with closing(sqlite3.connect(tmp_path / f"{NAME}.sqlite", isolation_level=None)) as lock:
            lock.execute("begin immediate")
            waiting = asyncio.create_task(spool.append([event("late")]))
            ticks = 0
            while ticks < 20:
                await asyncio.sleep(0.005)
                ticks += 1
            assert not waiting.done()
            lock.execute("rollback")
        await waiting

        assert await drain(spool) == ["late"]
        await spool.close()

    run(scenario())
