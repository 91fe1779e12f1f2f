"""Keep events on disk: those that would be lost otherwise, or with `durable` every one.

The folder of a project is shared by any number of processes, and so is its limit. Each appends to
segments of its own; what is left when a process ends, `orphans` takes over. Knows files, not HTTP.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from math import inf
from pathlib import Path
from time import monotonic, time
from typing import Final

from analytics_sdk.orphans import Orphans
from analytics_sdk.place import LOOK_AGAIN_S, Place
from analytics_sdk.reading import Mark, Reading, bury, put_in_hand, read
from analytics_sdk.segment import MANY_EVENTS, READ_BYTES, Segment, record, settled_offset

MAX_SEGMENT_BYTES: Final = 33_554_432
MIN_SEGMENT_BYTES: Final = 65_536
MAX_FAILED_READS: Final = 5
# After each 64th of the limit that a process writes, it looks what all have written: n of them
# together pass the limit by n/64 of it at most. A look takes 2 µs a file, and an outage may leave
# thousands, so it is the bytes that bound the looks: 64 until it is full, however small the events.
LOOKS: Final = 64


class SpoolFullError(OSError):
    """The folder has reached its limit; what is there was promised to be kept."""


class Spool:
    """The segments of this process.

    Not thread-safe by itself: `append()`, `spill()`, `read()` and `settle()` are called under the
    outbox's lock. `append()` may be re-entered by a signal handler.
    """

    def __init__(
        self,
        *,
        api_key: str,
        api_url: str,
        directory: Path,
        max_bytes: int,
        is_synced: bool = False,
        clock: Callable[[], float] = time,
    ) -> None:
        self._place = Place(api_key=api_key, api_url=api_url, directory=directory)
        self._max_bytes = max_bytes
        self._segment_bytes = min(max(max_bytes // 8, MIN_SEGMENT_BYTES), MAX_SEGMENT_BYTES)
        self._is_synced = is_synced
        self._clock = clock
        self._prefix = f"{int(clock() * 1000):013d}-{os.getpid()}-{os.urandom(4).hex()}"
        self.orphans = Orphans(self._place, ours=self._prefix, clock=clock)
        self._number = 0
        self._own: list[Segment] = []
        self._active: Segment | None = None
        self._front: Segment | None = None
        self._reserved = 0
        self._used_bytes = 0
        self._measured_at = -inf
        # What this process wrote since it looked what all have written; at first it has to look.
        self._unmeasured_bytes = self._look_after_bytes = max_bytes // LOOKS

    # Writing

    def begin(self) -> None:
        """Begin a stretch of the log whose first part may come last.

        What `append()` writes from now on is newer than what waits in memory. Should that come to
        disk too, by `spill()`, it gets a name that sorts before.
        """
        active, self._active, self._front = self._active, None, None
        if active is not None and active.is_done:
            self._remove(active)
        self._number += 1
        self._reserved = self._number

    def append(self, event: bytes) -> None:
        """Write *event* behind all others. Raises OSError, and then nothing of it is on disk."""
        content = record(event, int(self._clock()))
        self._make_room(len(content))
        active = self._active
        if active is None or active.is_spent or active.end + len(event) > self._segment_bytes:
            active = self._next_active()
        # Before the write, for a signal handler in the middle of it must not find it done.
        active.waiting += 1
        try:
            self._write(active, content)
        except OSError:
            active.waiting -= 1
            raise

    def spill(self, events: Sequence[bytes]) -> None:
        """
        Write *events*, which are older than what `append()` wrote since `begin()`.

        `read()` returns them some time. Raises OSError, and then nothing of them is on disk.
        """
        self._write_front(events).waiting += len(events)

    def spill_in_hand(self, events: Sequence[bytes]) -> Mark:
        """Do as `spill()` with events that somebody has in hand already."""
        front = self._write_front(events)
        front.read_at = front.end
        return put_in_hand(front, len(events))

    def _write_front(self, events: Sequence[bytes]) -> Segment:
        now_s = int(self._clock())
        records = b"".join(record(event, now_s) for event in events)
        self._make_room(len(records))
        if self._front is None:
            self._front = self._create(self._reserved)
        front = self._front
        self._write(front, records)
        return front

    def _write(self, segment: Segment, records: bytes) -> None:
        segment.append(records)
        self._used_bytes += len(records)
        self._unmeasured_bytes += len(records)
        segment.is_synced = False
        if self._is_synced:
            try:
                segment.sync()
            except OSError:
                # What a failed fsync left on the disk nobody knows, and a second one may lie.
                segment.is_spent = True
                segment.cut(len(records))
                self._used_bytes -= len(records)
                raise

    def _make_room(self, size_bytes: int) -> None:
        if self._unmeasured_bytes >= self._look_after_bytes:
            self._measure()
        if self._used_bytes + size_bytes <= self._max_bytes:
            return
        if monotonic() - self._measured_at >= LOOK_AGAIN_S:
            self._measure()
        if self._used_bytes + size_bytes > self._max_bytes:
            raise SpoolFullError(errno.ENOSPC, "The spool has reached spool_max_bytes")

    def _measure(self) -> None:
        """Add up what all processes have in the folder."""
        # First, for a signal handler in the middle of it must not begin once more.
        self._measured_at, self._unmeasured_bytes = monotonic(), 0
        self._place.open()
        # Out of descriptors, say. It is an estimate between two looks anyway.
        with suppress(OSError):
            self._used_bytes = self._place.used_bytes()

    def _next_active(self) -> Segment:
        try:
            self._number += 1
            active = self._create(self._number)
        except OSError:
            # No more files: then the one in use grows beyond its size.
            if self._active is None or self._active.is_spent:
                raise
            return self._active
        before, self._active = self._active, active
        if before is not None and before.is_done:
            self._remove(before)
        return active

    def _create(self, number: int) -> Segment:
        name = f"{self._prefix}-{number:010d}.seg"
        folder = self._place.open()
        try:
            segment = Segment.create(folder / name)
        except FileNotFoundError:
            # Somebody deleted the folder.
            self._place.forget()
            segment = Segment.create(self._place.open() / name)
        if self._is_synced:
            try:
                self._place.sync()
            except OSError:
                with suppress(OSError):
                    segment.remove()
                raise
        self._own.append(segment)
        return segment

    def sync(self) -> None:
        """Write through what is not on the disk itself yet, for a power cut. Raises OSError."""
        unsynced = [segment for segment in self._own if not segment.is_synced]
        failures = []
        for segment in unsynced:
            try:
                segment.sync()
                # Somebody deleted the folder: what comes next must be where others find it.
                segment.is_spent = segment.is_spent or not segment.is_linked
            except OSError as error:
                # A second fsync of the same file may say yes and lie.
                segment.is_spent = True
                failures.append(error)
        if failures:
            raise failures[0]
        if unsynced:
            self._place.sync()

    # Reading

    def read(self, max_events: int, max_bytes: int) -> Reading | None:
        """Return the oldest events of this process that nobody has in hand, None if none wait."""
        waiting = (own for own in self._own if own.waiting)
        segment = min(waiting, key=lambda own: own.path.name, default=None)
        if segment is None:
            return None
        try:
            reading = read(segment, max_events, max_bytes, self._clock())
        except OSError:
            segment.failed_reads += 1
            if segment.failed_reads < MAX_FAILED_READS:
                raise
            # A bad place on the disk: what lies behind it in other files must not wait for ever.
            segment.is_damaged = segment.is_spent = True
            segment.read_at = segment.end
            reading = Reading([], put_in_hand(segment, 0))
        segment.waiting -= len(reading.events) + reading.expired
        lost = 0
        if segment.read_at >= segment.end:
            # Only now it shows how many events the bad bytes were.
            lost, segment.waiting = segment.waiting, 0
        if not reading.events and segment.is_done:
            self._clear(segment)
        return replace(reading, lost=lost)

    def settle(self, mark: Mark, events: int) -> None:
        """Note that *events* of those behind *mark* have their outcome."""
        if not mark.settle(events):
            return
        if mark.segment.is_done:
            self._clear(mark.segment)
        else:
            mark.keep(int(self._clock()))

    def _clear(self, segment: Segment) -> None:
        """Free the room of a segment whose events all have their outcome."""
        # If that fails, the next process sends them again, and the ids keep them single.
        with suppress(OSError):
            if segment is self._active and not segment.is_spent and segment.is_linked:
                # Taken away meanwhile, for a `__del__` that tracks must not write to it.
                self._active = None
                self._used_bytes -= segment.end
                segment.empty()
                if self._active is None:
                    self._active = segment
            else:
                self._remove(segment)

    def _remove(self, segment: Segment) -> None:
        if segment is self._active:
            self._active = None
        if segment is self._front:
            self._front = None
        self._own.remove(segment)
        self._used_bytes -= segment.end
        bury(segment)

    # Ending

    def close(self) -> int:
        """
        Let go of every segment; others may take over what is left in them.

        Returns how many events are lost, for somebody has deleted their file, and the disk has no
        room for another.
        """
        lost = 0
        for segment in list(self._own):
            try:
                if segment.is_done:
                    bury(segment)
                    continue
                if not segment.is_linked:
                    self._write_again(segment)
                segment.close()
            except OSError:
                lost += segment.waiting + segment.in_hand
        self._own, self._active, self._front = [], None, None
        self.orphans.release()
        return lost

    def _write_again(self, deleted: Segment) -> None:
        """Write what needs delivery in a file without a name to one that others find."""
        self._number += 1
        copy = self._create(self._number)
        deleted.read_at = settled_offset(deleted)
        while deleted.read_at < deleted.end:
            chunk = deleted.read(MANY_EVENTS, READ_BYTES)
            copy.append(b"".join(map(record, chunk.events, chunk.taken_at)))
        copy.close()

    def abandon(self) -> None:
        """Close the files in a forked child; the parent keeps them and its locks."""
        for segment in self._own:
            with suppress(OSError):
                segment.close()
        self.orphans.release()
