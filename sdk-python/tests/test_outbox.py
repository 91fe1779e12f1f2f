"""The queue of one process, in memory; test_spool.py has what happens on disk."""

import threading

import pytest

from analytics_sdk.outbox import Outbox
from analytics_sdk.stats import Counters


@pytest.fixture
def outbox():
    return Outbox(Counters(), max_events=4, max_bytes=100)


def take(outbox, max_events, max_bytes):
    """Take a lot out and return its events."""
    return outbox.in_hand[-1].events if outbox.take(max_events, max_bytes) else []


def test_events_leave_in_the_order_they_came(outbox):
    """First in, first out."""
    for event in (b"1", b"2", b"3"):
        outbox.put(event)

    assert take(outbox, 2, 100) == [b"1", b"2"]
    assert take(outbox, 2, 100) == [b"3"]
    assert take(outbox, 2, 100) == []


def test_a_full_outbox_turns_the_newest_away(outbox):
    """An event once taken is never evicted for room."""
    answers = [outbox.put(b"%d" % number) for number in range(6)]
    assert answers == [1, 2, 3, 4, "queue_full", "queue_full"]

    assert take(outbox, 9, 100) == [b"0", b"1", b"2", b"3"]
    assert outbox.stats().taken == 4


def test_events_on_their_way_take_room(outbox):
    """Memory is bounded while a request hangs, too."""
    for _ in range(4):
        outbox.put(b"x")
    outbox.take(4, 100)

    assert outbox.put(b"y") == "queue_full"
    outbox.settle(delivered=4)
    assert outbox.put(b"y") == 1


def test_bytes_are_bounded(outbox):
    """A few large events fill it as well as many small ones, and their bytes come back."""
    assert outbox.put(b"x" * 60) == 1
    assert outbox.put(b"x" * 60) == "queue_full"
    assert outbox.put(b"x" * 40) == 2
    outbox.take(2, 1000)
    outbox.settle([1], rejected=1)
    assert outbox.put(b"x" * 41) == "queue_full"
    outbox.settle(delivered=1)
    assert outbox.put(b"x" * 100) == 1


def test_a_batch_holds_no_more_bytes_than_asked(outbox):
    """Each event counts with its comma."""
    for _ in range(4):
        outbox.put(b"x" * 9)

    assert len(take(outbox, 9, 29)) == 2
    assert len(take(outbox, 9, 20)) == 2


def test_an_event_larger_than_a_batch_still_leaves(outbox):
    """It goes alone rather than blocking the line for ever."""
    outbox.put(b"x" * 50)
    outbox.put(b"y")

    assert take(outbox, 9, 10) == [b"x" * 50]


def test_a_lot_that_is_split_stays_in_order(outbox):
    """The longer part first, and what is settled of a part leaves the rest where it was."""
    for number in range(3):
        outbox.put(b"%d" % number)
    outbox.take(9, 100)
    outbox.split()
    assert [lot.events for lot in outbox.in_hand] == [[b"0", b"1"], [b"2"]]

    outbox.settle([1], rejected=1)

    assert [lot.events for lot in outbox.in_hand] == [[b"0"], [b"2"]]


def test_what_is_not_settled_at_the_end_is_dropped_with_its_reason(outbox):
    """Waiting or on its way: it has one outcome, even if an answer comes later."""
    for event in (b"1", b"2", b"3"):
        outbox.put(event)
    outbox.take(1, 100)

    assert outbox.close() == (0, 3)
    outbox.settle(delivered=1)
    stats = outbox.stats()
    assert (stats.taken, stats.delivered, stats.dropped) == (3, 0, {"shutdown": 3})
    assert outbox.put(b"4") == "closed"


def test_a_waiter_wakes_when_its_events_are_settled(outbox):
    """And not before."""
    outbox.put(b"1")
    outbox.put(b"2")
    outbox.take(2, 100)
    assert not outbox.wait(2, 0)

    thread = threading.Thread(target=lambda: outbox.settle(delivered=2))
    thread.start()
    assert outbox.wait(2, 10)
    thread.join()


def test_the_age_is_that_of_the_oldest(outbox):
    """A steady trickle can't keep the first event waiting."""
    outbox.put(b"1")
    _, oldest_at = outbox.waiting()
    outbox.put(b"2")

    assert outbox.waiting() == (2, oldest_at)
    outbox.take(2, 100)
    assert outbox.waiting() == (0, float("inf"))


def test_the_account_adds_up_while_threads_put_and_take(adds_up):
    """At every instant, not only at the end."""
    outbox = Outbox(Counters(), max_events=50)
    stop = threading.Event()

    def put():
        while not stop.is_set():
            outbox.put(b"x")

    def take():
        while not stop.is_set():
            if outbox.take(7, 1000):
                events = len(outbox.in_hand[0].events)
                outbox.settle(delivered=events // 2, rejected=(events + 1) // 2)

    threads = [threading.Thread(target=work) for work in (put, put, take)]
    for thread in threads:
        thread.start()
    for _ in range(3000):
        adds_up(outbox.stats())
    stop.set()
    for thread in threads:
        thread.join()

    adds_up(outbox.stats())
    assert outbox.stats().delivered
