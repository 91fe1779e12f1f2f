"""Events on disk: kept in order, within bounds, and found by whoever comes next."""

import errno
import json
import logging
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time

import pytest

from analytics_sdk.folders import folder_name, folders, purge
from analytics_sdk.outbox import Outbox
from analytics_sdk.reading import EXPIRY_S
from analytics_sdk.segment import Segment, record
from analytics_sdk.spool import MIN_SEGMENT_BYTES, Spool
from analytics_sdk.stats import Counters

KEY = "ak_live_test0SECRET"


@pytest.fixture
def make_outbox(tmp_path):
    """Outboxes of processes that share a folder."""
    made = []

    def make(*, max_events=5, is_durable=False, **settings):
        spool = Spool(
            **{
                "api_key": KEY,
                "api_url": "http://127.0.0.1:1",
                "directory": tmp_path / "spool",
                "max_bytes": 2**28,
                **settings,
            }
        )
        outbox = Outbox(Counters(), max_events=max_events, spool=spool, is_durable=is_durable)
        made.append(outbox)
        return outbox

    yield make
    for outbox in made:
        outbox.close()


def take(outbox, max_events=500):
    return outbox.in_hand[-1].events if outbox.take(max_events, 2**20) else []


def drain(outbox, max_events=500):
    """Deliver everything of this process, in lots, and return it."""
    events = []
    while lot := take(outbox, max_events):
        events += lot
        outbox.settle(delivered=len(lot))
    return events


def adopt_all(outbox):
    events = []
    outbox.look_for_orphans()
    while outbox.adopt(500, 2**20):
        lot = outbox.in_hand[-1].events
        events += lot
        outbox.settle(delivered=len(lot))
    return events


def segments(tmp_path):
    return sorted((tmp_path / "spool").glob("*/*.seg"))


def test_what_memory_has_no_room_for_goes_to_disk(make_outbox, adds_up):
    """And comes back behind it."""
    outbox = make_outbox()
    events = [b"%d" % number for number in range(12)]

    assert [outbox.put(event) for event in events] == list(range(1, 13))
    assert (outbox.stats().queued, outbox.stats().spooled) == (5, 7)
    assert drain(outbox, 3) == events
    adds_up(outbox.stats())
    assert outbox.stats().delivered == 12


class Turnstile:
    """A lock that lets somebody else have a turn once its holder has gone through."""

    def __init__(self):
        self._lock = threading.RLock()
        self._depth = 0
        self.turns = []

    def __enter__(self):
        self._lock.acquire()
        self._depth += 1

    def __exit__(self, *_):
        self._depth -= 1
        self._lock.release()
        if self.turns and not self._depth:
            self.turns.pop(0)()

    def _is_owned(self):
        return self._lock._is_owned()


def test_what_is_taken_between_two_pieces_of_a_spill_is_not_lost(make_outbox, adds_up):
    """A flush() that gives up moves events to disk while the worker goes on."""
    outbox = make_outbox(max_events=10_000)
    events = [b"%d" % number for number in range(1200)]
    for event in events:
        outbox.put(event)
    outbox._lock = turnstile = Turnstile()

    seen = []

    def work():
        """Deliver what is on disk already, and take some of what is in memory still."""
        while outbox._spilled:
            seen.extend(take(outbox))
            outbox.settle(delivered=len(outbox.in_hand[0].events))
        seen.extend(take(outbox))

    # After what is in hand, after the first piece.
    turnstile.turns = [lambda: None, work]
    outbox.spill()
    # The request failed, so the worker does the same.
    outbox.spill()
    outbox.settle(delivered=len(outbox.in_hand[0].events))
    seen += drain(outbox)

    assert seen == events
    assert outbox.stats().dropped == {}
    adds_up(outbox.stats())


class FullDisk(Spool):
    """A spool on a disk that may be full."""

    is_full = False

    def append(self, event):
        if self.is_full:
            raise OSError(errno.ENOSPC, "full")
        super().append(event)


def test_a_disk_that_fills_up_after_a_spill_leaves_the_room_in_memory(tmp_path, adds_up):
    """In the order of the calls, whatever waits where."""
    spool = FullDisk(
        api_key=KEY, api_url="http://127.0.0.1:1", directory=tmp_path / "spool", max_bytes=2**28
    )
    outbox = Outbox(Counters(), max_events=5, spool=spool)
    events = [b"%d" % number for number in range(16)]
    for event in events[:6]:
        outbox.put(event)
    outbox.spill()
    outbox.put(events[6])
    spool.is_full = True
    answers = [outbox.put(event) for event in events[7:13]]
    spool.is_full = False
    assert outbox.put(events[13]) == 13
    spool.is_full = True
    # What is on disk now is newer than what is in memory, and this would be newer still.
    assert outbox.put(events[14]) == "queue_full"
    spool.is_full = False
    outbox.put(events[15])

    assert answers == [8, 9, 10, 11, 12, "queue_full"]
    assert drain(outbox, 3) == [*events[:12], events[13], events[15]]
    adds_up(outbox.stats())
    outbox.close()


class Interrupted(Spool):
    """A spool that a signal handler interrupts once, and tracks."""

    handler = None

    def append(self, event):
        if (handler := self.handler) is not None:
            self.handler = None
            handler()
        super().append(event)


def test_the_worker_is_woken_when_a_signal_handler_tracks_in_the_middle(tmp_path):
    """One of the two calls finds that nothing waited before."""
    spool = Interrupted(
        api_key=KEY, api_url="http://127.0.0.1:1", directory=tmp_path / "spool", max_bytes=2**28
    )
    outbox = Outbox(Counters(), max_events=5, spool=spool, is_durable=True)
    answers = []
    spool.handler = lambda: answers.append(outbox.put(b"handler"))
    answers.append(outbox.put(b"main"))

    assert sorted(answers) == [1, 2]
    assert outbox.waiting()[1] < time.monotonic()
    outbox.close()


def test_events_whose_folder_was_deleted_are_there_again_at_the_end(make_outbox, adds_up):
    """Some had their outcome before, and are not written again."""
    outbox = make_outbox(is_durable=True)
    events = [b"%d" % number for number in range(300)]
    for event in events:
        outbox.put(event)
    assert take(outbox, 100) == events[:100]
    outbox.settle(delivered=100)
    assert take(outbox, 100) == events[100:200]
    shutil.rmtree(next(iter(outbox._spool._own)).path.parent.parent)

    assert outbox.close() == (200, 0)
    assert outbox.stats().spooled == 200
    adds_up(outbox.stats())
    assert adopt_all(make_outbox()) == events[100:]


@pytest.mark.parametrize("seed", range(30))
def test_order_and_account_hold_whatever_happens(make_outbox, adds_up, seed):
    """Full memory, failures that move it to disk, verdicts, splits, an end and a next process."""
    dice = random.Random(seed)
    is_durable = seed % 5 == 4
    outbox = make_outbox(max_events=6, is_durable=is_durable)
    put, seen = 0, []

    def put_some():
        nonlocal put
        for _ in range(dice.randrange(1, 9)):
            assert isinstance(outbox.put(b"%06d" % put), int)
            put += 1

    def deliver():
        if outbox.in_hand or outbox.take(dice.randrange(1, 7), 2**20):
            if dice.random() < 0.3 and len(outbox.in_hand[0].events) > 1:
                outbox.split()
            events = outbox.in_hand[0].events
            if dice.random() < 0.3 and len(events) > 1:
                # The collector refuses some, and the others go again.
                refused = dice.sample(range(len(events)), len(events) // 2)
                seen.extend(events[place] for place in refused)
                outbox.settle(refused, rejected=len(refused))
            else:
                seen.extend(events)
                outbox.settle(delivered=len(events))

    for _ in range(150):
        dice.choice((put_some, put_some, deliver, deliver, deliver, outbox.spill))()
        adds_up(outbox.stats())
    in_hand = [event for lot in outbox.in_hand for event in lot.events]
    outbox.close()
    adds_up(outbox.stats())
    assert outbox.stats().dropped == {}

    rest = adopt_all(make_outbox())

    assert set(seen) | set(rest) == {b"%06d" % number for number in range(put)}
    # Those that were refused one by one left before their time; all else is in order, and what
    # was in hand at the end may be sent again.
    assert rest == sorted(rest)
    repeated = set(seen) & set(rest)
    assert repeated <= set(in_hand) | set(seen[-6:])


def test_nothing_is_written_as_long_as_all_goes_well(make_outbox, tmp_path):
    """The disk is for what would be lost."""
    outbox = make_outbox()
    for number in range(5):
        outbox.put(b"%d" % number)
    drain(outbox)
    outbox.close()

    assert not (tmp_path / "spool").exists()


def test_delivered_events_leave_no_file_behind(make_outbox, tmp_path):
    """Neither while the process lives nor after it."""
    outbox = make_outbox(is_durable=True)
    for number in range(1000):
        outbox.put(b"%d" % number)
    assert segments(tmp_path)
    drain(outbox)

    assert sum(path.stat().st_size for path in segments(tmp_path)) == 0
    outbox.close()
    assert segments(tmp_path) == []


def test_events_that_were_spilled_leave_no_file_behind(make_outbox, tmp_path):
    """Or one outage after the other would fill the disk for as long as the process lives."""
    outbox = make_outbox()
    for number in range(5):
        outbox.put(b"%d" % number)
    outbox.take(2, 2**20)
    outbox.spill()  # what is in hand, and what waits
    assert segments(tmp_path)
    outbox.settle(delivered=2)
    drain(outbox)

    assert segments(tmp_path) == []


def test_what_is_on_disk_at_the_end_is_not_lost(make_outbox, adds_up):
    """Even if the worker asks for it once more, when it is the next process's."""
    outbox = make_outbox(is_durable=True)
    outbox.put(b"1")
    assert outbox.close() == (1, 0)

    assert not outbox.take(5, 2**20)
    assert (outbox.stats().spooled, outbox.stats().dropped) == (1, {})
    adds_up(outbox.stats())


def test_what_was_dropped_at_the_end_is_not_spilled_later(make_outbox, tmp_path, adds_up):
    """It has its outcome, though the disk may have room again."""
    outbox = make_outbox(max_bytes=50)
    outbox.put(b"x" * 99)
    outbox.take(5, 2**20)
    assert outbox.close() == (0, 1)
    outbox._spool._max_bytes = 2**28
    outbox.spill()

    assert (outbox.stats().queued, outbox.stats().spooled) == (0, 0)
    assert segments(tmp_path) == []
    adds_up(outbox.stats())


def test_only_the_owner_may_read_it(make_outbox, tmp_path):
    """The folder is 0700 and its files 0600, whatever the umask."""
    before = os.umask(0)
    try:
        make_outbox(is_durable=True).put(b"{}")
    finally:
        os.umask(before)
    folder = tmp_path / "spool" / folder_name(KEY)

    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    modes = {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == {0o600}


def test_no_file_has_the_key(make_outbox, tmp_path):
    """Only what is shown of it elsewhere, too."""
    outbox = make_outbox(is_durable=True)
    outbox.put(b"{}")
    outbox.close()
    texts = [path.read_bytes() for path in (tmp_path / "spool").rglob("*") if path.is_file()]

    assert texts
    assert not any(b"SECRET" in text for text in texts)
    assert not any("SECRET" in str(path) for path in (tmp_path / "spool").rglob("*"))


def loosen(folder):
    folder.chmod(0o755)


def link(folder):
    elsewhere = folder.with_name("elsewhere")
    folder.rename(elsewhere)
    folder.symlink_to(elsewhere)


def open_to_all(folder):
    folder.parent.chmod(0o777)


def occupy(folder):
    folder.rmdir()
    folder.write_text("a file")


def give_away(folder):
    if os.geteuid() != 0:
        pytest.skip("needs root")
    os.chown(folder, 65534, 65534)


@pytest.mark.parametrize("spoil", [loosen, link, open_to_all, occupy, give_away])
def test_a_folder_that_is_not_safe_is_not_used(make_outbox, tmp_path, spoil):
    """Neither to write to nor to read from."""
    folder = tmp_path / "spool" / folder_name(KEY)
    folder.mkdir(parents=True, mode=0o700)
    spoil(folder)

    assert make_outbox(is_durable=True).put(b"{}") == "spool_failed"
    assert adopt_all(make_outbox()) == []


def test_without_a_disk_events_wait_in_memory(make_client, collector, tmp_path, sdk_log):
    """One warning, and delivery as ever; a durable client turns events away instead."""
    (tmp_path / "file").write_text("")
    plain = make_client(spool_dir=tmp_path / "file" / "spool", max_queue_size=20)
    durable = make_client(spool_dir=tmp_path / "file" / "spool", durable=True)
    answers = [durable.track("durable") for _ in range(3)]

    assert plain.track("plain")
    assert plain.flush()
    assert answers == [False] * 3
    assert durable.stats().refused == {"spool_failed": 3}
    assert sdk_log.reasons().count("spool_failed") == 2  # what is wrong, and what it means
    assert collector.names == ["plain"]


def test_a_full_spool_turns_the_newest_away_and_keeps_the_old(make_outbox, tmp_path):
    """What was promised is not evicted, and the disk is not filled."""
    limit = 8 * MIN_SEGMENT_BYTES
    outbox = make_outbox(is_durable=True, max_bytes=limit)
    answers = [outbox.put(b"%06d" % number + b"x" * 500) for number in range(2000)]
    taken = [number for number, answer in enumerate(answers) if isinstance(answer, int)]

    assert taken == list(range(len(taken)))
    assert answers[-1] == "spool_full"
    assert len(taken) > 900
    assert sum(path.stat().st_size for path in segments(tmp_path)) <= limit
    assert [int(event[:6]) for event in drain(outbox)] == taken
    assert outbox.put(b"again") == 1


@pytest.mark.parametrize("durable", [True, False])
def test_with_the_collector_away_a_client_fills_its_spool_and_no_more(
    make_client, collector, closed_port, tmp_path, durable
):
    """The calls after it are False, and those before it are delivered, the oldest among them."""
    limit = 8 * MIN_SEGMENT_BYTES
    client = make_client(
        api_url=f"http://127.0.0.1:{closed_port}",
        durable=durable,
        max_queue_size=10,
        spool_max_bytes=limit,
    )
    answers = [client.track(f"{number:06}", {"filler": "x" * 400}) for number in range(2000)]
    disk_bytes = sum(path.stat().st_size for path in segments(tmp_path))
    refused = client.stats().refused
    client.shutdown(0)
    # What waited in memory finds no room at the end, and is counted.
    kept = sum(answers) - client.stats().dropped.get("shutdown", 0)
    other = make_client()

    assert answers == sorted(answers, reverse=True)
    assert sum(refused.values()) == answers.count(False) > 500
    assert set(refused) <= {"spool_full", "queue_full"}
    assert disk_bytes <= limit + MIN_SEGMENT_BYTES
    assert other.recover(20)
    names = [f"{number:06}" for number in range(2000)]
    assert len(collector.names) == kept
    assert collector.names == names[sum(answers) - kept : sum(answers)]


def test_the_limit_is_one_for_all_processes(make_outbox):
    """They share the folder."""
    limit = 8 * MIN_SEGMENT_BYTES
    first = make_outbox(is_durable=True, max_bytes=limit)
    while isinstance(first.put(b"x" * 5000), int):
        pass
    second = make_outbox(is_durable=True, max_bytes=limit)

    assert second.put(b"x" * 5000) == "spool_full"


def test_writers_that_take_turns_share_the_limit(make_outbox, tmp_path):
    """Each looks now and then what the others have written, not only when a segment is full."""
    limit = 8 * MIN_SEGMENT_BYTES
    writers = [make_outbox(is_durable=True, max_bytes=limit) for _ in range(12)]
    answers = [0]
    while int in map(type, answers):
        answers = [writer.put(b"x" * 300) for writer in writers]

    assert set(answers) == {"spool_full"}
    assert 0.99 < sum(path.stat().st_size for path in segments(tmp_path)) / limit < 1.25


def test_a_look_that_fails_costs_no_event(make_outbox, tmp_path):
    """Here for the folder is gone; without descriptors it would fail, too."""
    limit = 8 * MIN_SEGMENT_BYTES
    outbox = make_outbox(is_durable=True, max_bytes=limit)
    outbox.put(b"1")
    shutil.rmtree(tmp_path / "spool")

    assert {type(outbox.put(b"x" * 5000)) for _ in range(10)} == {int}


def test_events_expire_after_thirty_days(make_outbox, adds_up):
    """Later the collector could not tell a repetition from a new event."""
    now = time.time()
    old = make_outbox(is_durable=True, clock=lambda: now - EXPIRY_S - 1)
    old.put(b"old")
    old.close()
    young = make_outbox(is_durable=True, clock=lambda: now - EXPIRY_S + 100)
    young.put(b"young")
    young.close()
    outbox = make_outbox(clock=lambda: now)

    assert adopt_all(outbox) == [b"young"]
    assert outbox.stats().expired == 1
    adds_up(outbox.stats())


def test_damage_is_counted_and_kept_for_whoever_wants_to_look(make_outbox, tmp_path, adds_up):
    """And costs only the events that it hit."""
    outbox = make_outbox(is_durable=True)
    for number in range(100):
        outbox.put(b"%03d" % number)
    outbox.close()
    path = segments(tmp_path)[0]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    other = make_outbox()

    assert len(adopt_all(other)) == 99
    assert other.stats().dropped == {"spool_damaged": 1}
    adds_up(other.stats())
    assert [path.suffix for path in path.parent.iterdir() if path.suffix != ".json"] == [".damaged"]


def test_an_event_that_the_disk_has_changed_is_never_sent(make_outbox, tmp_path, adds_up):
    """It still reads like one, and would be stored as something that nobody tracked."""
    outbox = make_outbox(is_durable=True)
    events = [b'{"amount":%d}' % number for number in range(100, 200)]
    for event in events:
        outbox.put(event)
    outbox.close()
    path = segments(tmp_path)[0]
    path.write_bytes(path.read_bytes().replace(b'{"amount":150}', b'{"amount":158}'))
    other = make_outbox()

    assert adopt_all(other) == events[:50] + events[51:]
    assert other.stats().dropped == {"spool_damaged": 1}
    adds_up(other.stats())


def test_damage_under_our_hands_is_counted(make_outbox, tmp_path, adds_up):
    """The events that can't be read any more have their outcome."""
    outbox = make_outbox(is_durable=True)
    for number in range(100):
        outbox.put(b"%03d" % number)
    path = segments(tmp_path)[0]
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\0" * 8)

    assert len(drain(outbox)) == 99
    assert outbox.stats().dropped == {"spool_damaged": 1}
    adds_up(outbox.stats())


def test_what_is_not_ours_is_left_alone(make_outbox, tmp_path):
    """Foreign files, links, files of a later version, and empty ones that a crash left."""
    folder = tmp_path / "spool" / folder_name(KEY)
    folder.mkdir(parents=True, mode=0o700)
    name = "1700000000000-{0}-0123abcd-000000000{0}.seg"
    (folder / "notes.txt").write_text("mine")
    (folder / name.format(1)).write_bytes(b"EVT2" + b"\0" * 40)
    (folder / name.format(2)).write_bytes(b"")
    (tmp_path / "secret").write_bytes(record(b"stolen", 2_000_000_000))
    (folder / name.format(3)).symlink_to(tmp_path / "secret")
    Segment.create(folder / name.format(4)).append(record(b"ours", 2_000_000_000))

    # Opened a second time, for the one above is still held.
    assert adopt_all(make_outbox()) == []
    left = {path.name for path in folder.iterdir()}
    assert left == {
        "notes.txt",
        name.format(1).replace(".seg", ".damaged"),
        name.format(3),
        name.format(4),
        "about.json",
    }


def test_the_key_says_whose_the_events_are(make_outbox):
    """Another project's client does not send them, the same project's at a new address does."""
    outbox = make_outbox(is_durable=True)
    outbox.put(b"{}")
    outbox.close()

    assert adopt_all(make_outbox(api_key="ak_live_other")) == []
    assert adopt_all(make_outbox(api_url="https://moved.example")) == [b"{}"]


def test_a_settled_lot_is_not_sent_again_by_the_next_process(make_outbox):
    """Only what had no answer when the process died."""
    outbox = make_outbox(is_durable=True)
    for number in range(30):
        outbox.put(b"%02d" % number)
    take(outbox, 10)
    outbox.settle(delivered=10)
    take(outbox, 10)
    # As if killed here: the lock is let go of, and nothing more is written.
    outbox._spool.abandon()

    assert adopt_all(make_outbox()) == [b"%02d" % number for number in range(10, 30)]


def test_a_folder_that_somebody_deletes_is_made_again(make_outbox, tmp_path):
    """What comes later is safe again."""
    outbox = make_outbox(is_durable=True)
    outbox.put(b"1")
    for path in sorted((tmp_path / "spool").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    drain(outbox)

    assert outbox.put(b"2") == 1
    assert len(segments(tmp_path)) == 1


def test_a_segment_that_somebody_cuts_short_keeps_nobody(make_outbox, tmp_path, adds_up):
    """Neither the worker, which holds the lock, nor who tracks."""
    outbox = make_outbox(is_durable=True)
    for number in range(10):
        outbox.put(b"%d" % number)
    os.truncate(segments(tmp_path)[0], 0)
    thread = threading.Thread(target=take, args=(outbox,), daemon=True)
    thread.start()
    thread.join(10)

    assert not thread.is_alive()
    assert outbox.stats().dropped == {"spool_damaged": 10}
    adds_up(outbox.stats())


def test_a_front_that_is_done_is_not_written_to_again(make_outbox, tmp_path):
    """Its descriptor may be the host's by now."""
    outbox = make_outbox(max_events=5, max_bytes=600)
    for number in range(5):
        outbox.put(b"%d" % number + b"x" * 99)
    outbox.take(1, 2**20)
    assert outbox.put(b"5" + b"x" * 99) == 5
    outbox.spill()  # what is in hand goes to disk, the rest does not fit
    outbox.settle(delivered=1)
    with (tmp_path / "hosts").open("wb", buffering=0):
        outbox.take(1, 2**20)
        outbox.spill()

    assert (tmp_path / "hosts").read_bytes() == b""


@pytest.mark.parametrize("fails_again", [False, True])
def test_order_holds_when_the_disk_fills_in_the_middle_of_a_spill(make_outbox, fails_again):
    """What was spilled first is older than what stayed in memory."""
    outbox = make_outbox(max_events=600, max_bytes=250 * 316 + 1000)
    for number in range(500):
        outbox.put(b"%06d" % number + b"x" * 294)
    outbox.spill()
    assert (outbox.stats().queued, outbox.stats().spooled) == (250, 250)
    if fails_again:
        outbox.take(100, 2**20)
        outbox._spool._max_bytes = 2**28
        outbox.spill()
    seen = []
    while outbox.in_hand or outbox.take(100, 2**20):
        lot = outbox.in_hand[0].events
        seen += [int(event[:6]) for event in lot]
        outbox.settle(delivered=len(lot))

    assert seen == list(range(500))
    assert outbox.stats().dropped == {}


@pytest.mark.parametrize("refill", [False, True])
def test_a_handler_may_put_at_any_call_inside_a_put(make_outbox, adds_up, tmp_path, refill):
    """Every place where Python runs signal handlers, one after the other."""
    for place in range(1, 600):
        outbox = make_outbox(max_events=3, directory=tmp_path / str(place))
        for number in range(4 if refill else 3):
            outbox.put(b"a%d" % number)
        if refill:
            drain(outbox)
            for number in range(3):
                outbox.put(b"b%d" % number)
        calls = interrupted_put(outbox, place)
        outbox.put(b"d")
        found = drain(outbox)

        assert found.count(b"c") == found.count(b"d") == 1
        assert outbox.stats().dropped == {}
        adds_up(outbox.stats())
        outbox.close()
        if calls < place:
            return
        assert found.count(b"handler") == 1
    pytest.fail("too few places")


def interrupted_put(outbox, place):
    """Put an event, and another at the *place*-th call on the way; return how many there are."""
    calls = 0

    def interrupt(frame, event, argument):
        nonlocal calls
        calls += event in ("call", "c_return")
        if calls == place:
            sys.setprofile(None)
            outbox.put(b"handler")

    sys.setprofile(interrupt)
    outbox.put(b"c")
    sys.setprofile(None)
    return calls


def test_a_logging_handler_that_tracks_can_not_lock_us_up(make_outbox, tmp_path):
    """Its own lock is held meanwhile, by the rules of logging."""
    (tmp_path / "file").write_text("")
    outbox = make_outbox(max_events=1, directory=tmp_path / "file" / "spool")
    outbox.put(b"fills it")
    inside, go = threading.Event(), threading.Event()

    class Tracks(logging.Handler):
        def emit(self, record):
            if record.name == "host":
                inside.set()
                go.wait(10)
                outbox.put(b"from the handler")

    handler = Tracks()
    logging.getLogger().addHandler(handler)
    try:
        host = logging.getLogger("host")
        first = threading.Thread(target=host.warning, args=("x",), daemon=True)
        first.start()
        inside.wait(10)
        second = threading.Thread(target=outbox.put, args=(b"no room",), daemon=True)
        second.start()
        second.join(0.3)
        go.set()
        for thread in (first, second):
            thread.join(10)
            assert not thread.is_alive()
    finally:
        logging.getLogger().removeHandler(handler)


def test_damage_is_counted_once_however_it_is_read(make_outbox, tmp_path, adds_up):
    """Also if the rest of the file comes with later reads."""
    outbox = make_outbox(is_durable=True)
    for number in range(100):
        outbox.put(b"%03d" % number)
    with segments(tmp_path)[0].open("r+b") as file:
        file.seek(190)
        file.write(b"\0" * 8)
    found = 0
    while lot := take(outbox, 50):
        found += len(lot)
        outbox.settle(delivered=len(lot))
        stats = outbox.stats()
        assert stats.spooled >= 0
        assert stats.dropped.get("spool_damaged", 0) <= 1
        adds_up(stats)

    assert found == 99
    assert outbox.put(b"again") == 1


def test_one_process_goes_on_with_what_another_left(make_outbox):
    """Two that share it would mix up the order."""
    old = make_outbox()
    for number in range(10):
        old.put(b"%d" % number)
    old.close()  # two segments
    first, second = make_outbox(), make_outbox()
    first.look_for_orphans()
    second.look_for_orphans()

    assert first.adopt(2, 100)
    assert not second.adopt(9, 100)
    assert first.in_hand[0].events == [b"0", b"1"]


def test_what_was_let_go_of_is_not_written_to(make_outbox, tmp_path):
    """Its descriptor may be the host's by now."""
    old = make_outbox(is_durable=True)
    for number in range(30):
        old.put(b"%02d" % number)
    old.close()
    outbox = make_outbox()
    outbox.look_for_orphans()
    assert outbox.adopt(10, 2**20)
    fd = outbox._spool.orphans._adopted.fd
    with (tmp_path / "hosts").open("wb", buffering=0) as hosts:
        os.dup2(hosts.fileno(), fd)  # which can't be read
        assert not outbox.adopt(10, 2**20)
        os.dup2(hosts.fileno(), fd)
        outbox.settle(delivered=10)
        os.close(fd)

    assert (tmp_path / "hosts").read_bytes() == b""
    assert len(adopt_all(outbox)) == 30


def test_durable_events_after_the_folder_was_deleted_can_be_found(make_outbox, tmp_path):
    """At the latest when what waited is delivered, or written through."""
    for way in (drain, Outbox.sync):
        outbox = make_outbox(is_durable=True)
        outbox.put(b"1")
        shutil.rmtree(tmp_path / "spool")
        way(outbox)
        outbox.put(b"2")
        assert len(segments(tmp_path)) == 1
        outbox.close()


def test_a_refused_event_costs_no_file(make_outbox, tmp_path):
    """A full spool is found out without making a segment for each call."""
    limit = 8 * MIN_SEGMENT_BYTES
    full = make_outbox(is_durable=True, max_bytes=limit)
    while isinstance(full.put(b"x" * 5000), int):
        pass
    outbox = make_outbox(max_events=1, max_bytes=limit)
    outbox.put(b"1")
    before = set(segments(tmp_path))

    assert {outbox.put(b"2" * 5000) for _ in range(50)} == {"spool_full"}
    assert set(segments(tmp_path)) == before
    assert outbox._spool._number <= 50


def test_many_segments_still_have_names_in_order(make_outbox, tmp_path):
    """Beyond a million, too."""
    first = make_outbox(max_events=1)
    first.put(b"1")
    first._spool._number = 999_998
    first.put(b"2")
    first.spill()
    first.put(b"3")
    first.close()

    assert adopt_all(make_outbox()) == [b"1", b"2", b"3"]


def test_a_notice_that_is_broken_hides_no_project(make_outbox, tmp_path):
    """Whoever looks from outside still sees what waits."""
    outbox = make_outbox(is_durable=True)
    outbox.put(b"1")
    (tmp_path / "spool" / folder_name(KEY) / "about.json").write_bytes(b"")

    [status] = folders(tmp_path / "spool")
    assert (status.events, status.api_url, status.held_segments) == (1, "", 1)


def test_a_look_from_outside_and_a_purge(make_outbox, tmp_path):
    """Tell what waits; what belongs to the living stays."""
    dead, alive = make_outbox(is_durable=True), make_outbox(is_durable=True)
    for number in range(3):
        dead.put(b"%d" % number)
    dead.close()
    alive.put(b"4")

    [status] = folders(tmp_path / "spool")
    assert (status.events, status.segments, status.held_segments) == (4, 2, 1)
    assert status.key_prefix == KEY[:12]
    assert status.is_ours(KEY)
    assert not status.is_ours("ak_live_other")
    assert purge(status.path, older_than_s=3600) == 0
    assert purge(status.path) == 3
    assert drain(alive) == [b"4"]


def test_expired_events_leave_no_file(make_outbox, tmp_path):
    """Neither one's own nor those of others."""
    now = time.time()
    for is_own in (True, False):
        ages = [EXPIRY_S + 1, 0]
        outbox = make_outbox(is_durable=True, clock=lambda ages=ages: now - ages[0])
        outbox.put(b"old")
        if is_own:
            ages.reverse()
            assert take(outbox) == []
            assert sum(path.stat().st_size for path in segments(tmp_path)) == 0
        outbox.close()
        assert adopt_all(make_outbox()) == []
        assert segments(tmp_path) == []


def test_room_that_becomes_free_is_used_again(make_outbox):
    """Twenty times half the limit is not more than the limit."""
    outbox = make_outbox(is_durable=True, max_bytes=8 * MIN_SEGMENT_BYTES)
    for _ in range(20):
        for _ in range(50):
            assert isinstance(outbox.put(b"x" * 5000), int)
        assert len(drain(outbox, 7)) == 50


def test_the_oldest_event_on_disk_has_an_age(make_outbox):
    """Else nobody would send it before the batch is full."""
    outbox = make_outbox(is_durable=True)
    outbox.put(b"1")

    assert outbox.waiting()[1] < float("inf")


def test_parts_of_what_was_taken_over_are_accounted_for(make_outbox, adds_up):
    """Split and settled one by one."""
    old = make_outbox(is_durable=True)
    for number in range(4):
        old.put(b"%d" % number)
    old.close()
    outbox = make_outbox()
    outbox.look_for_orphans()
    assert outbox.adopt(9, 2**20)
    outbox.split()
    outbox.settle(delivered=2)
    adds_up(outbox.stats())
    outbox.settle([0], rejected=1)
    outbox.settle(delivered=1)

    stats = outbox.stats()
    assert (stats.taken, stats.adopted, stats.delivered, stats.rejected) == (4, 4, 3, 1)
    assert stats.spooled == 0


def test_two_outages_keep_the_order(make_outbox, adds_up):
    """Overflow, spill and delivery, twice."""
    outbox = make_outbox(max_events=5)
    seen = []
    for start in (0, 100):
        for number in range(start, start + 12):
            outbox.put(b"%03d" % number)
        outbox.spill()
        assert outbox.stats().queued == 0
        adds_up(outbox.stats())
        seen += drain(outbox, 4)

    assert seen == [b"%03d" % number for number in (*range(12), *range(100, 112))]


# Whole programs

EXITS = {
    "sys.exit": "sys.exit(0)",
    "exception": "raise ValueError",
    "SIGTERM": "os.kill(os.getpid(), signal.SIGTERM); time.sleep(5)",
    "SIGINT": "os.kill(os.getpid(), signal.SIGINT); time.sleep(5)",
    "os._exit": "os._exit(0)",
    "abort": "os.abort()",
    "segfault": "import ctypes; ctypes.string_at(0)",
    "exec": "os.execv('/bin/true', ['true'])",
    "SIGKILL": "os.kill(os.getpid(), signal.SIGKILL)",
}


@pytest.mark.parametrize("way", EXITS)
def test_durable_events_survive_every_end_of_a_process(
    run_program, collector, way, make_client, closed_port
):
    """The next process that starts delivers them."""
    program = run_program(
        f"""
        sys.stderr = open(os.devnull, "w")
        analytics.init(durable=True, shutdown_timeout_s=0)
        print(all(analytics.track(f"{{number}}") for number in range(50)), flush=True)
        {EXITS[way]}
        """,
        ANALYTICS_API_URL=f"http://127.0.0.1:{closed_port}",
    )
    assert program.stdout.startswith("True")
    assert collector.names == []
    client = make_client()

    assert client.track("next")
    assert client.recover()
    assert client.flush()
    assert sorted(collector.names) == sorted(["next", *map(str, range(50))])
    assert client.stats().adopted == 50


@pytest.mark.parametrize("way", ["sys.exit", "exception", "SIGINT"])
def test_events_survive_an_orderly_end_with_the_collector_away(
    run_program, collector, way, make_client, closed_port
):
    """Without `durable`, too."""
    program = run_program(
        f"""
        sys.stderr = open(os.devnull, "w")
        analytics.init(shutdown_timeout_s=0.2)
        print(all(analytics.track(f"{{number}}") for number in range(50)), flush=True)
        {EXITS[way]}
        """,
        ANALYTICS_API_URL=f"http://127.0.0.1:{closed_port}",
    )
    client = make_client()

    assert program.stdout.startswith("True")
    assert client.recover()
    assert collector.names == [str(number) for number in range(50)]


def test_an_outage_moves_what_waits_to_disk(
    run_program, collector, make_client, closed_port, eventually
):
    """So a kill in the middle of it loses nothing that was tried before."""
    program = run_program(
        """
        client = analytics.init()
        for number in range(30):
            client.track(f"{number}")
        while client.stats().spooled < 30:
            client.flush(0.1)
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        ANALYTICS_API_URL=f"http://127.0.0.1:{closed_port}",
    )
    assert program.returncode == -signal.SIGKILL
    client = make_client()

    assert client.recover()
    assert collector.names == [str(number) for number in range(30)]


def test_a_backlog_on_disk_drains_in_order_when_the_collector_is_back(
    make_client, collector, reply, eventually
):
    """Events of the outage and events after it, each once, in large batches."""
    collector.always(reply.status(503))
    client = make_client(max_queue_size=50, flush_interval_s=0.05)
    for number in range(2000):
        assert client.track(f"{number}")
    client.flush(0.3)
    collector.always(reply.accept())
    for number in range(2000, 2100):
        assert client.track(f"{number}")

    assert client.flush(30)
    assert collector.names == [str(number) for number in range(2100)]
    assert max(collector.sizes) == 500


def test_a_child_of_fork_lets_go_of_its_parents_files(run_program, make_client, collector):
    """Or the parent's events could not be taken over as long as the child lives."""
    program = run_program(
        """
        client = analytics.init("ak_live_test0SECRET", "http://127.0.0.1:9", durable=True)
        client.track("parent")
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(1), os.close(2)
            os.write(writer, b"!")
            signal.pause()
        os.read(reader, 1)
        print(child, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    child = int(program.stdout)
    try:
        client = make_client()
        assert client.recover()
        assert collector.names == ["parent"]
    finally:
        os.kill(child, signal.SIGKILL)


WRITER = """
import os, sys
import analytics_sdk as analytics
client = analytics.init(durable=True)
number = 0
while True:
    if client.track("event", {"from": os.getpid(), "number": number}, message_id=None):
        os.write(1, b"%d %d\\n" % (os.getpid(), number))
    number += 1
"""


def test_nothing_is_lost_when_writers_are_killed_at_random(
    make_client, collector, closed_port, spool_dir
):
    """Everything that `track()` said True to is found again, and nothing twice."""
    rounds = int(os.environ.get("KILL_ROUNDS", "3"))
    dice = random.Random(int(os.environ.get("CHAOS_SEED", "1")))
    environment = {
        **os.environ,
        "ANALYTICS_API_URL": f"http://127.0.0.1:{closed_port}",
        "ANALYTICS_API_KEY": KEY,
        "ANALYTICS_SPOOL_DIR": str(spool_dir),
    }
    acknowledged = set()
    for _ in range(rounds):
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", WRITER], env=environment, stdout=subprocess.PIPE
            )
            for _ in range(4)
        ]
        for writer in writers:
            with writer:
                lines = [writer.stdout.readline() for _ in range(dice.randrange(50, 3000))]
                writer.kill()
                lines += writer.stdout.readlines()
            acknowledged.update(line for line in lines if line.endswith(b"\n"))
    client = make_client()

    assert client.recover(60)
    found = [b"%d %d\n" % tuple(e["properties"].values()) for e in collector.stored]
    print(f"{rounds} rounds: {len(acknowledged)} acknowledged, {len(found)} found")
    assert acknowledged <= set(found)
    assert len(found) == len(set(found))
    # One more a writer may have been written without its answer being read.
    assert len(found) <= len(acknowledged) + 4 * rounds


def test_a_certificate_file_that_is_missing_is_no_traceback(run_program):
    """The events wait on disk."""
    program = run_program(
        """
        client = analytics.Client(api_url="https://127.0.0.1:9")
        client.track("x")
        client.flush(0.5)
        client.shutdown(0.2)
        print(client.stats().spooled)
        """,
        SSL_CERT_FILE="/nonexistent",
    )

    assert program.stdout.strip() == "1", program.stderr
    assert "Traceback" not in program.stderr


def test_a_process_without_descriptors_goes_on(run_program):
    """Nothing raises, the event is refused, and the next one after a file was closed is taken."""
    program = run_program(
        """
        import resource
        client = analytics.init(durable=True, flush_interval_s=3600)
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        client.recover(20)  # till the thread has imported what it needs, opened that, and sleeps
        taken = []
        while True:
            try:
                taken.append(os.open(os.devnull, os.O_RDONLY))
            except OSError:
                break
        refused = client.track("without")
        for fd in taken:
            os.close(fd)
        deadline = time.monotonic() + 20
        while not client.track("with") and time.monotonic() < deadline:
            pass
        print(refused, client.stats().taken, client.stats().refused["spool_failed"] > 0)
        """
    )

    assert program.stdout.split() == ["False", "1", "True"], program.stderr


def test_a_working_directory_that_is_gone_is_no_error(run_program, tmp_path):
    """Nor is a home that does not exist."""
    program = run_program(
        """
        os.mkdir(sys.argv[1])
        os.chdir(sys.argv[1])
        os.rmdir(sys.argv[1])
        client = analytics.init(spool_dir="spool", max_queue_size=1)
        print([client.track(str(number)) for number in range(3)][0], client.flush())
        """,
        str(tmp_path / "gone"),
        HOME="/nonexistent",
        # CPython 3.13.0 itself can't import `socket` there if it looks in the working directory.
        PYTHONSAFEPATH="1",
    )

    assert program.stdout.split() == ["True", "True"], program.stderr


def test_the_account_of_what_is_on_disk_is_told(make_client, collector, reply):
    """`stats()` says where events are."""
    collector.always(reply.status(503))
    client = make_client(durable=True)
    for number in range(30):
        client.track(f"{number}")
    stats = client.stats()
    assert (stats.taken, stats.queued, stats.spooled) == (30, 0, 30)
    collector.always(reply.accept())

    assert client.flush()
    assert (client.stats().delivered, client.stats().spooled) == (30, 0)


def test_about_tells_where_the_events_were_to_go(make_outbox, tmp_path):
    """For whoever finds the folder."""
    make_outbox(is_durable=True).put(b"{}")
    about = json.loads((tmp_path / "spool" / folder_name(KEY) / "about.json").read_text())

    assert about == {"api_url": "http://127.0.0.1:1", "api_key": "ak_live_test"}


def test_a_signal_handler_may_track_in_the_middle_of_a_durable_track(run_program, collector):
    """A thousand times a second, and every event that was taken arrives once."""
    program = run_program(
        """
        client = analytics.init(durable=True)
        answers = []
        signal.signal(signal.SIGALRM, lambda *_: answers.append(client.track("handler")))
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        for number in range(5000):
            answers.append(client.track("main"))
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(all(answers), client.flush(30))
        print(len(answers) == client.stats().delivered, len(answers))
        """
    )
    *truths, count = program.stdout.split()

    assert truths == ["True"] * 3, program.stderr
    ids = [event["messageId"] for event in collector.stored]
    assert len(ids) == len(set(ids)) == int(count) > 5000


FAILING_FSYNC = """
calls = []

def fdatasync(fd, call=os.fdatasync):
    calls.append(os.fstat(fd).st_ino)
    if len(calls) == 3:
        raise OSError(5, "Input/output error")
    call(fd)

os.fdatasync = fdatasync
for name in [name for name in sys.modules if name.startswith("analytics_sdk")]:
    del sys.modules[name]
import analytics_sdk as analytics
"""


def test_after_a_failed_fsync_the_segment_is_given_up(run_program, tmp_path, closed_port):
    """That event is refused; the others are on a new segment, and none is lost."""
    program = run_program(
        FAILING_FSYNC
        + """
client = analytics.init(durable="fsync", flush_interval_s=3600, batch_size=500)
answers = [client.track(str(number)) for number in range(6)]
print(answers, client.stats().refused, calls[2] in calls[3:], len(calls), flush=True)
os._exit(0)
""",
        ANALYTICS_API_URL=f"http://127.0.0.1:{closed_port}",
    )

    answers = "[True, True, False, True, True, True]"
    expected = f"{answers} {{'spool_failed': 1}} False 6"
    assert program.stdout.strip() == expected, program.stderr
    assert names_on_disk(tmp_path) == [["0", "1"], ["3", "4", "5"]]


def test_a_file_that_could_not_be_written_through_is_not_tried_again(
    run_program, tmp_path, closed_port
):
    """A second fsync may say yes and lie; what comes next is in a new file."""
    program = run_program(
        FAILING_FSYNC
        + """
client = analytics.init(durable=True, flush_interval_s=3600, batch_size=500)
for number in range(6):
    client.track(str(number))
    client._worker.outbox.sync()
print(calls[2] in calls[3:], len(calls), client.stats().taken, flush=True)
os._exit(0)
""",
        ANALYTICS_API_URL=f"http://127.0.0.1:{closed_port}",
    )

    assert program.stdout.strip() == "False 6 6", program.stderr
    assert names_on_disk(tmp_path) == [["0", "1", "2"], ["3", "4", "5"]]


def names_on_disk(tmp_path):
    """Return the names of the events in each segment."""
    found = []
    for path in segments(tmp_path):
        segment = Segment.adopt(path)
        chunk = segment.read(99, 2**20)
        found.append([json.loads(event)["name"] for event in chunk.events])
        segment.close()
    return found
