"""One file of the spool: a log of events, and how far they have been dealt with.

A record is one `write(2)`: a header (mark, length, CRC-32, time) and the event. Torn or flipped
bytes cost the records they hit, no other: the reader goes on at the next mark. Who opens a segment
holds its lock (`flock`) until it is closed; the kernel lets go of it when a process dies, however
it dies.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from zlib import crc32

try:
    import fcntl
except ImportError:  # Windows has no flock
    fcntl = None  # type: ignore[assignment]

# mark, bytes of content, CRC-32 of content and time, seconds since 1970
HEADER: Final = struct.Struct("<4sIII")
EVENT: Final = b"EVT1"
# Its content is an offset: what lies before it in this file needs no delivery any more.
SETTLED: Final = b"ACK1"
OFFSET: Final = struct.Struct("<Q")
MARKS: Final = (EVENT, SETTLED)

READ_BYTES: Final = 262_144
MANY_EVENTS: Final = 1_000
# Longer than any event; a length beyond it is a flipped bit.
MAX_CONTENT_BYTES: Final = 1_048_576

_sync = getattr(os, "fdatasync", os.fsync)


def record(event: bytes, now_s: int) -> bytes:
    """Return the record of *event*, taken at *now_s* (seconds since 1970)."""
    # The time is the start value of the checksum, and so protected by it.
    return HEADER.pack(EVENT, len(event), crc32(event, now_s), now_s) + event


@dataclass(frozen=True, slots=True)
class Chunk:
    """What was read from a segment in one go."""

    events: list[bytes]
    taken_at: list[int]
    """When each was written, in seconds since 1970."""
    end: int
    """The offset where the next read begins."""
    damaged: int
    """Stretches of bytes that hold no record (any more)."""


def is_supported() -> bool:
    """Tell whether this system has the locks that segments need (Windows does not)."""
    return fcntl is not None


class Segment:
    """An open segment, locked by this process. Its methods raise OSError."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self.fd = fd
        self.end = os.fstat(fd).st_size
        self.read_at = 0
        self.waiting = 0
        """Events that nobody has read; known for segments of this process only."""
        self.in_hand = 0
        """Events that were read and have no outcome yet."""
        self.is_damaged = False
        self.failed_reads = 0
        self.is_synced = True
        self.is_spent = False
        """Nothing may be appended, since a write came to grief."""

    @property
    def is_linked(self) -> bool:
        """Tell whether the file still has its name, so that others can find it."""
        return os.fstat(self.fd).st_nlink > 0

    @property
    def is_done(self) -> bool:
        """Tell whether all its events have their outcome, if it is of this process."""
        return not self.waiting and not self.in_hand

    @classmethod
    def create(cls, path: Path) -> Segment:
        """Make a new one; nobody else may have had the name."""
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_APPEND | os.O_CLOEXEC
        segment = cls(path, os.open(path, flags, 0o600))
        try:
            fcntl.flock(segment.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Somebody who looks for orphans may have been faster than our lock.
            if not segment.is_linked:
                raise FileExistsError(errno.EEXIST, "adopted before it was locked", str(path))
        except OSError:
            with suppress(OSError):
                segment.remove()
            raise
        return segment

    @classmethod
    def adopt(cls, path: Path) -> Segment | None:
        """Open what another process left, or return None: it lives, or somebody was faster."""
        try:
            # Not through a link: what lies there need not be ours.
            flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
            fd = os.open(path, flags)
        except OSError:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            status = os.fstat(fd)
        except OSError:
            os.close(fd)
            return None
        # Delivered and unlinked between our open and our lock?
        if not stat.S_ISREG(status.st_mode) or status.st_nlink == 0:
            os.close(fd)
            return None
        return cls(path, fd)

    def append(self, records: bytes) -> None:
        """Write *records* in one piece; after an error none of it is in the file."""
        written = os.write(self.fd, records)
        self.end += written
        if written != len(records):
            self.cut(written)
            raise OSError(errno.ENOSPC, "short write")

    def cut(self, size_bytes: int) -> None:
        """Take the last *size_bytes* back."""
        self.end -= size_bytes
        # If that fails, what comes after it would not lie where we think.
        was_spent, self.is_spent = self.is_spent, True
        # By the size of now, because a signal handler may have written meanwhile.
        os.ftruncate(self.fd, os.fstat(self.fd).st_size - size_bytes)
        self.is_spent = was_spent

    def sync(self) -> None:
        """Wait until the file is on the disk itself."""
        self.is_synced = True
        _sync(self.fd)

    def read(self, max_events: int, max_bytes: int) -> Chunk:
        """Return the next events from `read_at`, and move on behind them."""
        left_bytes = self.end - self.read_at
        buffer = os.pread(self.fd, min(left_bytes, READ_BYTES), self.read_at)
        needed = _needed(buffer)
        if needed > len(buffer):
            buffer = os.pread(self.fd, min(needed, left_bytes), self.read_at)
        if len(buffer) < min(left_bytes, READ_BYTES):
            # Somebody cut the file short: its owner, if it is not ours, or a broken disk.
            self.end = self.read_at + len(buffer)
        is_last = self.read_at + len(buffer) >= self.end
        chunk = _parse(buffer, self.read_at, max_events, max_bytes, is_last=is_last)
        self.read_at = chunk.end
        self.is_damaged = self.is_damaged or bool(chunk.damaged)
        return chunk

    def settle(self, offset: int, now_s: int) -> None:
        """Note that nothing before *offset* needs delivery any more."""
        content = OFFSET.pack(offset)
        self.append(HEADER.pack(SETTLED, len(content), crc32(content, now_s), now_s) + content)

    def empty(self) -> None:
        """Forget everything in the file."""
        os.ftruncate(self.fd, 0)
        self.end = self.read_at = 0

    def close(self) -> None:
        """Give up the lock; others may adopt the file from now on."""
        os.close(self.fd)

    def remove(self) -> None:
        """Delete the file and close it, in this order, so that nobody adopts it in between."""
        try:
            self.path.unlink()
        finally:
            os.close(self.fd)


def _needed(buffer: bytes) -> int:
    """Return how many bytes the record at the start of *buffer* has, as far as it can be told."""
    if len(buffer) < HEADER.size:
        return 0
    mark, length, _, _ = HEADER.unpack_from(buffer)
    return HEADER.size + length if mark in MARKS and length <= MAX_CONTENT_BYTES else 0


def _parse(buffer: bytes, start: int, max_events: int, max_bytes: int, *, is_last: bool) -> Chunk:
    """Return the records of *buffer*, which lies at *start* of the file and perhaps at its end."""
    events: list[bytes] = []
    times: list[int] = []
    at = size_bytes = damaged = 0
    while at + HEADER.size <= len(buffer) and len(events) < max_events:
        mark, length, checksum, time_s = HEADER.unpack_from(buffer, at)
        begin, after = at + HEADER.size, at + HEADER.size + length
        is_whole = after <= len(buffer)
        is_plausible = mark in MARKS and length <= MAX_CONTENT_BYTES
        if is_plausible and not is_whole and not is_last:
            break
        content = buffer[begin:after]
        if is_plausible and is_whole and crc32(content, time_s) == checksum:
            if mark == EVENT:
                size_bytes += length + 1
                if events and size_bytes > max_bytes:
                    break
                events.append(content)
                times.append(time_s)
            at = after
            continue
        at = _next_mark(buffer, at + 1)
        # A record that the end of the file cuts short was never promised to anybody.
        is_torn = is_plausible and not is_whole and at >= len(buffer) - len(EVENT)
        damaged += not is_torn
    if is_last and len(buffer) - at < HEADER.size:
        at = len(buffer)
    return Chunk(events, times, start + at, damaged)


def _next_mark(buffer: bytes, at: int) -> int:
    # A mark may lie across the end of what was read.
    nowhere = max(at, len(buffer) - len(EVENT) + 1)
    return min((place for mark in MARKS if (place := buffer.find(mark, at)) >= 0), default=nowhere)


def settled_offset(segment: Segment) -> int:
    """
    Return how far an adopted segment was settled by whoever had it before.

    The marks can be searched for: no event has their bytes in it, since JSON has no NUL.
    """
    size_bytes = HEADER.size + OFFSET.size
    settled = place = 0
    while place < segment.end:
        buffer = os.pread(segment.fd, READ_BYTES, place)
        at = buffer.find(SETTLED)
        while 0 <= at <= len(buffer) - size_bytes:
            _, length, checksum, time_s = HEADER.unpack_from(buffer, at)
            content = buffer[at + HEADER.size : at + size_bytes]
            if length == OFFSET.size and crc32(content, time_s) == checksum:
                settled = max(settled, OFFSET.unpack(content)[0])
            at = buffer.find(SETTLED, at + 1)
        # With an overlap, for a record may lie across.
        place += max(len(buffer) - size_bytes, size_bytes)
    return min(settled, segment.end)


def event_times(path: Path) -> list[int]:
    """Return when each event that waits in the file was taken, without a lock, so about so."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    with closing(Segment(path, fd)) as segment:
        segment.read_at = settled_offset(segment)
        times: list[int] = []
        while segment.read_at < segment.end:
            times += segment.read(MANY_EVENTS, READ_BYTES).taken_at
        return times
