"""One file of the spool: what is written comes back, whatever happens to its bytes."""

import fcntl
import os
import random
import subprocess
import sys

import pytest

from analytics_sdk.segment import HEADER, READ_BYTES, Segment, record, settled_offset

MANY = 10_000


@pytest.fixture
def segment(tmp_path):
    segment = Segment.create(tmp_path / "one.seg")
    yield segment
    segment.close()


def write(segment, events, now_s=1_000):
    for event in events:
        segment.append(record(event, now_s))


def read_all(segment, max_events=MANY, max_bytes=2**20):
    """Read to the end, and return the events and how many stretches were damaged."""
    events, damaged = [], 0
    while segment.read_at < segment.end:
        before = segment.read_at
        chunk = segment.read(max_events, max_bytes)
        assert chunk.end > before, "no progress"
        events += chunk.events
        damaged += chunk.damaged
    return events, damaged


def numbered(count, size=300):
    return [b"%06d" % number + b"y" * size for number in range(count)]


def test_what_is_written_comes_back_in_order(segment):
    """Small, large and empty."""
    events = [b"1", b"", b"x" * 102_400, *numbered(3000)]
    write(segment, events)

    assert read_all(segment) == (events, 0)


@pytest.mark.parametrize(("max_events", "max_bytes"), [(7, 2**20), (500, 1000), (1, 1)])
def test_a_read_takes_no_more_than_asked(segment, max_events, max_bytes):
    """And goes on where it stopped; a single event may be larger than asked."""
    events = numbered(50)
    write(segment, events)
    chunk = segment.read(max_events, max_bytes)

    assert 1 <= len(chunk.events) <= max_events
    assert len(chunk.events) == 1 or sum(map(len, chunk.events)) < max_bytes
    assert chunk.events + read_all(segment, max_events, max_bytes)[0] == events


def test_each_event_has_its_time(segment):
    """By which it expires."""
    write(segment, [b"a"], now_s=5)
    write(segment, [b"b"], now_s=7)

    assert segment.read(9, 99).taken_at == [5, 7]


def test_flipped_bits_cost_the_records_they_hit_and_no_other(segment):
    """Two hundred bits of five thousand records, and a torn end."""
    events = numbered(5000)
    write(segment, events)
    dice = random.Random(1)
    content = bytearray(os.pread(segment.fd, segment.end, 0))
    hit = set()
    size = HEADER.size + len(events[0])
    for _ in range(200):
        place = dice.randrange(len(content))
        content[place] ^= 1 << dice.randrange(8)
        hit.add(place // size)
    torn = bytes(content[:-17])
    os.ftruncate(segment.fd, 0)
    os.write(segment.fd, torn)
    segment.end = len(torn)

    found, damaged = read_all(segment)

    intact = [event for number, event in enumerate(events[:-1]) if number not in hit]
    assert found == intact
    assert 0 < damaged <= len(hit)
    assert len(found) >= 0.96 * len(events) - 1


def test_garbage_larger_than_a_read_is_passed_over(segment):
    """What comes after it is found."""
    write(segment, [b"before"])
    segment.append(os.urandom(3 * READ_BYTES).replace(b"EVT1", b"evt1").replace(b"ACK1", b"ack1"))
    write(segment, [b"after"])

    events, damaged = read_all(segment)

    assert events == [b"before", b"after"]
    assert damaged


def test_a_record_that_was_never_finished_is_no_damage(segment):
    """Nobody was promised anything."""
    write(segment, [b"whole"])
    torn = record(b"torn" * 50, 1)[:-30]
    segment.append(torn)

    assert read_all(segment) == ([b"whole"], 0)


def test_a_full_disk_leaves_the_records_before_intact(tmp_path):
    """What did not fit is taken back, and writing goes on when there is room again."""
    program = """
import resource, signal, sys
from pathlib import Path
from analytics_sdk.segment import Segment, record
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
segment = Segment.create(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
refused = 0
for number in range(5):
    try:
        segment.append(record(b"%d" % number + b"x" * 300, 1))
    except OSError:
        refused += 1
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
segment.append(record(b"more", 1))
found = [event[:4] for event in segment.read(99, 9999).events]
print(refused, found, segment.read_at == segment.end)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "one.seg")],
        capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip

    assert done.stdout.strip() == "2 [b'0xxx', b'1xxx', b'2xxx', b'more'] True", done.stderr


def test_what_is_settled_is_known_to_the_next_owner(segment):
    """Even if the notes are further apart than what is read at once."""
    write(segment, numbered(10))
    middle = segment.end
    segment.settle(middle, 1)
    write(segment, numbered(2000))
    later = segment.end
    assert settled_offset(segment) == middle
    segment.settle(later, 1)
    write(segment, numbered(3))

    assert settled_offset(segment) == later
    segment.read_at = later
    assert read_all(segment) == (numbered(3), 0)


def test_an_event_can_not_pretend_to_be_a_note(segment):
    """JSON has no NUL, and a note that its checksum does not fit is none."""
    write(segment, [b'{"name": "ACK1"}', b"ACK1" + b"\x08\0\0\0" + b"\xff" * 16])

    assert settled_offset(segment) == 0


def test_nobody_adopts_what_is_still_held(segment):
    """The lock goes with the file, not with the name of a process."""
    assert Segment.adopt(segment.path) is None


def test_a_segment_is_free_at_once_when_its_owner_closes_it(tmp_path):
    """And its content goes to whoever adopts it."""
    first = Segment.create(tmp_path / "one.seg")
    write(first, [b"1", b"2"])
    first.close()
    second = Segment.adopt(tmp_path / "one.seg")

    assert read_all(second) == ([b"1", b"2"], 0)
    second.remove()
    assert Segment.adopt(tmp_path / "one.seg") is None


def test_links_pipes_and_directories_are_not_adopted(tmp_path):
    """What lies there need not be ours."""
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "link.seg").symlink_to(tmp_path / "secret")
    os.mkfifo(tmp_path / "pipe.seg")
    (tmp_path / "directory.seg").mkdir()

    for name in ("link.seg", "pipe.seg", "directory.seg", "nothing.seg"):
        assert Segment.adopt(tmp_path / name) is None
    assert (tmp_path / "secret").read_bytes() == b"secret"


def test_a_look_from_outside_ends_when_the_owner_empties_the_file(segment):
    """It has no lock."""
    write(segment, numbered(3))
    other = Segment(segment.path, os.open(segment.path, os.O_RDONLY))
    segment.empty()
    other.read(100, 1000)

    assert other.read_at >= other.end
    other.close()


def test_a_file_adopted_before_it_was_locked_is_not_used(tmp_path, monkeypatch):
    """Who looks for orphans may come between the two calls."""
    flock = fcntl.flock

    def late(fd, how):
        monkeypatch.setattr(fcntl, "flock", flock)
        Segment.adopt(tmp_path / "one.seg").remove()
        flock(fd, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(FileExistsError):
        Segment.create(tmp_path / "one.seg")


def test_a_file_system_without_locks_costs_no_descriptors(tmp_path, monkeypatch):
    """Each try is refused, and nothing is left open or lying about."""

    def refuse(fd, how):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    probe = os.dup(0)
    os.close(probe)
    for _ in range(5):
        with pytest.raises(OSError, match="No locks"):
            Segment.create(tmp_path / "one.seg")

    after = os.dup(0)
    os.close(after)
    assert after == probe
    assert list(tmp_path.iterdir()) == []


def test_what_could_not_be_taken_back_is_not_built_upon(segment, monkeypatch):
    """The disk was full, and then it could not even be cut: this file takes no more."""
    write(segment, [b"good"])
    monkeypatch.setattr(os, "write", lambda fd, data, call=os.write: call(fd, data[:20]))

    def fail(fd, size):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "ftruncate", fail)
    with pytest.raises(OSError, match="Read-only"):
        segment.append(record(b"bad" * 50, 1))

    assert segment.is_spent
    assert read_all(segment)[0] == [b"good"]


@pytest.mark.parametrize("place", [READ_BYTES - 2, READ_BYTES - 10])
def test_marks_across_the_end_of_a_read_are_found(segment, place):
    """Records and notes alike."""
    os.write(segment.fd, b"x" * place)
    segment.end += place
    segment.append(record(b"found", 1))
    end = segment.end
    segment.settle(end, 1)
    assert settled_offset(segment) == end

    assert read_all(segment)[0] == [b"found"]
