"""The stream in a real Valkey: appended to in one place, and noticed when it is not whole."""

from __future__ import annotations

import asyncio

import pytest
from redis.exceptions import ResponseError

from analytics_collector.adapters.redis.client import connect
from analytics_collector.adapters.redis.live import RedisLiveStream
from analytics_collector.adapters.redis.names import STREAM, STREAM_TAIL
from analytics_collector.adapters.redis.stream import ConsumerGroup, EventStream
from analytics_collector.model import Cursor, Entry


def entry(number: int, xid: int = 7) -> Entry:
    return Entry(Cursor(xid, number), Cursor(7, number - 1), f'[{{"n": {number}}}]')


@pytest.fixture
def redis(valkey_url, run):
    """Return a client of an empty Valkey."""
    client = connect(valkey_url)
    run(client.flushall())
    yield client
    run(client.aclose())


@pytest.fixture
def stream(redis):
    """Return the publisher's end of an empty stream."""
    return EventStream(redis)


@pytest.fixture
def ids(redis, run):
    """Return the ids of the stream's entries."""
    return lambda: [name for name, _ in run(redis.xrange(STREAM))]


@pytest.fixture
def group(redis, stream, run):
    """Return a consumer's end of a stream of ten entries."""
    run(stream.append(None, [entry(n) for n in range(1, 11)]))
    group = ConsumerGroup(redis, "g", "me")
    assert run(group.ensure())
    return group


def test_entries_get_the_ids_of_their_commits(stream, redis, run):
    """The place in the stream is the place in the log, so nothing is ever appended twice."""
    assert run(stream.append(None, [entry(1), entry(2)]))
    assert run(stream.append(entry(2).cursor, [entry(3, xid=8)]))

    found = run(redis.xrange(STREAM))
    assert [name for name, _ in found] == ["7-1", "7-2", "8-3"]
    assert found[2][1] == {"commit_id": "3", "previous": "7-2", "events": '[{"n": 3}]'}
    assert run(stream.tail()) == Cursor(8, 3)


@pytest.mark.parametrize("expected", [None, Cursor(7, 1), Cursor(7, 3)], ids=str)
def test_who_expects_another_tail_appends_nothing(stream, ids, run, expected):
    """Of two publishers, or one that slept, only who knows the last entry may add to it."""
    run(stream.append(None, [entry(1), entry(2)]))

    assert not run(stream.append(expected, [entry(4)]))
    assert ids() == ["7-1", "7-2"]
    assert run(stream.tail()) == Cursor(7, 2)


def test_a_flushed_stream_is_noticed_in_the_call_that_appends(stream, redis, ids, run):
    """Between looking and appending there is no moment for a FLUSHALL to go unseen."""
    run(stream.append(None, [entry(1)]))
    run(redis.flushall())

    assert not run(stream.append(entry(1).cursor, [entry(2)]))
    assert ids() == []
    assert run(stream.tail()) is None


@pytest.mark.parametrize("lost", [STREAM, STREAM_TAIL])
def test_half_of_a_stream_is_no_stream(stream, redis, ids, run, lost):
    """The stream or its tail deleted alone is noticed as well, and cleared away before a refill."""
    run(stream.append(None, [entry(1)]))
    run(redis.delete(lost))

    assert run(stream.tail()) is None
    assert not run(stream.append(entry(1).cursor, [entry(2)]))
    run(stream.clear())
    assert run(stream.append(None, [entry(1), entry(2)]))
    assert ids() == ["7-1", "7-2"]


@pytest.fixture
def long_stream(stream, redis, run):
    """Return a stream of a thousand entries."""
    run(stream.append(None, [entry(n) for n in range(1, 1001)]))
    return stream


def first_number(ids: list[str]) -> int:
    return Cursor.parse(ids[0]).commit_id


def test_a_stream_within_its_size_is_left_alone(long_stream, ids, run):
    """History stays as long as there is room."""
    run(long_stream.trim(1000, 2**30, entry(1000).cursor))

    assert len(ids()) == 1000


def test_entries_that_all_have_passed_go(long_stream, ids, run):
    """Redis does not fill up while everybody keeps pace."""
    run(long_stream.trim(10, 2**30, entry(900).cursor))

    assert 700 < first_number(ids()) <= 900


def test_few_entries_that_are_large_go_too(long_stream, ids, run):
    """Memory is what there is little of."""
    run(long_stream.trim(10**9, 1000, Cursor(9, 0)))

    assert len(ids()) < 200


def test_our_slowest_consumer_loses_nothing(long_stream, ids, run):
    """A consumer that is down for a day finds all of it."""
    run(long_stream.trim(10, 2**30, entry(350).cursor))

    assert 200 < first_number(ids()) <= 350


def test_a_group_of_somebody_else_that_lags_loses_nothing(long_stream, redis, ids, run):
    """Whoever else reads the stream is asked, not overrun."""
    run(redis.xgroup_create(STREAM, "fast", id="7-1000"))
    run(redis.xgroup_create(STREAM, "theirs", id="7-350"))
    run(long_stream.trim(10, 2**30, entry(1000).cursor))

    assert 200 < first_number(ids()) <= 350


def test_what_a_foreign_group_took_and_did_not_acknowledge_stays(long_stream, redis, ids, run):
    """An entry in somebody's hands may be wanted again."""
    run(redis.xgroup_create(STREAM, "theirs", id="7-349"))
    run(redis.xreadgroup("theirs", "c", {STREAM: ">"}, count=600))
    run(redis.xack(STREAM, "theirs", *[f"7-{n}" for n in range(400, 900)]))
    run(long_stream.trim(10, 2**30, entry(1000).cursor))

    assert 200 < first_number(ids()) <= 350


def test_a_group_begins_at_the_beginning(group, run):
    """A new consumer gets all that the stream still has, in its order."""
    assert run(group.read(100, 1)) == [entry(n) for n in range(1, 11)]
    assert run(group.read(100, 1)) == []


def test_a_group_is_made_once(group, redis, run):
    """To ensure it again is harmless and does not move it."""
    run(group.read(4, 1))

    assert run(group.ensure())
    assert run(group.read(1, 1)) == [entry(5)]


def test_without_a_stream_there_is_no_group_yet(redis, run):
    """A consumer that starts before the first event waits, it does not make an empty stream."""
    assert not run(ConsumerGroup(redis, "g", "me").ensure())
    assert run(redis.exists(STREAM)) == 0


def test_what_a_dead_consumer_left_is_taken_over_oldest_first(group, redis, run):
    """Entries that were delivered and not acknowledged come again."""
    run(ConsumerGroup(redis, "g", "dead").read(5, 1))
    run(group.acknowledge([entry(2)]))

    assert run(group.claim_pending(2)) == [entry(1), entry(3)]
    run(group.acknowledge([entry(1), entry(3)]))
    assert run(group.claim_pending(100)) == [entry(4), entry(5)]


def test_an_entry_that_was_trimmed_while_it_was_pending_is_skipped(group, redis, run):
    """It is gone; there is nothing to wait for."""
    run(group.read(3, 1))
    run(redis.xdel(STREAM, "7-2"))

    assert run(group.claim_pending(100)) == [entry(1), entry(3)]


def test_a_group_that_is_gone_is_an_error_to_its_reader(group, redis, run):
    """Who reads learns that it has to begin again, rather than waiting for nothing."""
    run(redis.xgroup_destroy(STREAM, "g"))

    with pytest.raises(ResponseError, match="NOGROUP"):
        run(group.read(1, 1))


def test_the_client_repeats_no_command(redis):
    """A timeout may come after the command was carried out: trying again is ours to decide."""
    assert redis.get_retry()._retries == 0


def test_a_task_that_is_cancelled_ends_whatever_it_was_doing(redis, run):
    """A worker that is told to stop stops, at whichever step of a command that reaches it."""

    async def ping_for_ever() -> None:
        while True:
            await redis.ping()

    async def scenario() -> list[int]:
        deaf = []
        for steps in range(1, 60):
            task = asyncio.create_task(ping_for_ever())
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            if not (await asyncio.wait([task], timeout=1))[0]:
                deaf.append(steps)
                task.cancel()
        return deaf

    assert run(scenario()) == []


def test_entries_of_others_are_passed_over_and_not_read_again(redis, stream, run):
    """Who follows is told that nothing was waited for, and pauses; what is ours comes still."""
    live = RedisLiveStream(redis)
    for number in range(20):
        run(redis.xadd(STREAM, {"what": "else"}, id=f"6-{number + 1}"))
    run(redis.xadd(STREAM, {"what": "else"}, id="7-1"))
    run(stream.append(None, [entry(2)]))

    told = [run(live.after(Cursor(0, 0))) for _ in range(3)]

    assert told == [None, None, [entry(2)]]
    assert run(live.after(entry(2).cursor)) == []
    assert run(live.after(Cursor(7, 1))) == [entry(2)]
