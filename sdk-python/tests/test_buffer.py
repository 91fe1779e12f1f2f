import threading

import pytest

from analytics_sdk.buffer import Buffer
from analytics_sdk.stats import Counters


@pytest.fixture
def buffer():
    return Buffer(Counters(), max_events=4, max_bytes=100)


def test_events_leave_in_the_order_they_came(buffer):
    """First in, first out."""
    for event in (b"1", b"2", b"3"):
        buffer.put(event)

    assert buffer.take(2, 100) == [b"1", b"2"]
    assert buffer.take(2, 100) == [b"3"]
    assert buffer.take(2, 100) == []


def test_a_full_buffer_turns_the_newest_away(buffer):
    """An event once taken is never evicted for room."""
    assert [buffer.put(b"%d" % number) for number in range(6)] == [1, 2, 3, 4, 0, 0]

    assert buffer.take(9, 100) == [b"0", b"1", b"2", b"3"]
    assert buffer.stats().taken == 4


def test_events_on_their_way_take_room(buffer):
    """Memory is bounded while a request hangs, too."""
    for _ in range(4):
        buffer.put(b"x")
    taken = buffer.take(4, 100)

    assert buffer.put(b"y") == 0
    buffer.settle(taken, delivered=4)
    assert buffer.put(b"y") == 1


def test_bytes_are_bounded(buffer):
    """A few large events fill it as well as many small ones, and their bytes come back."""
    assert buffer.put(b"x" * 60) == 1
    assert buffer.put(b"x" * 60) == 0
    assert buffer.put(b"x" * 40) == 2
    buffer.settle(buffer.take(2, 1000), delivered=1, rejected=1)
    assert buffer.put(b"x" * 100) == 1


def test_a_batch_holds_no_more_bytes_than_asked(buffer):
    """Each event counts with its comma."""
    for _ in range(4):
        buffer.put(b"x" * 9)

    assert len(buffer.take(9, 29)) == 2
    assert len(buffer.take(9, 20)) == 2


def test_an_event_larger_than_a_batch_still_leaves(buffer):
    """It goes alone rather than blocking the line for ever."""
    buffer.put(b"x" * 50)
    buffer.put(b"y")

    assert buffer.take(9, 10) == [b"x" * 50]


def test_what_is_not_settled_at_the_end_is_dropped_with_its_reason(buffer):
    """Waiting or on its way: it has one outcome, even if an answer comes later."""
    for event in (b"1", b"2", b"3"):
        buffer.put(event)
    on_its_way = buffer.take(1, 100)

    assert buffer.close("shutdown") == 3
    buffer.settle(on_its_way, delivered=1)
    stats = buffer.stats()
    assert (stats.taken, stats.delivered, stats.dropped) == (3, 0, {"shutdown": 3})
    assert buffer.put(b"4") == 0


def test_a_waiter_wakes_when_its_events_are_settled(buffer):
    """And not before."""
    buffer.put(b"1")
    buffer.put(b"2")
    events = buffer.take(2, 100)
    assert not buffer.wait(2, 0)

    thread = threading.Thread(target=lambda: buffer.settle(events, delivered=2))
    thread.start()
    assert buffer.wait(2, 10)
    thread.join()


def test_the_age_is_that_of_the_oldest(buffer):
    """A steady trickle can't keep the first event waiting."""
    buffer.put(b"1")
    _, oldest_at = buffer.waiting()
    buffer.put(b"2")

    assert buffer.waiting() == (2, oldest_at)
    buffer.take(2, 100)
    assert buffer.waiting() == (0, float("inf"))


def test_the_account_adds_up_while_threads_put_and_take(buffer, adds_up):
    """At every instant, not only at the end."""
    buffer = Buffer(Counters(), max_events=50)
    stop = threading.Event()

    def put():
        while not stop.is_set():
            buffer.put(b"x")

    def take():
        while not stop.is_set():
            events = buffer.take(7, 1000)
            buffer.settle(events, delivered=len(events) // 2, rejected=(len(events) + 1) // 2)

    threads = [threading.Thread(target=work) for work in (put, put, take, take)]
    for thread in threads:
        thread.start()
    for _ in range(3000):
        adds_up(buffer.stats())
    stop.set()
    for thread in threads:
        thread.join()

    adds_up(buffer.stats())
