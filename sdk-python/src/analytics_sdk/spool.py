"""Keep events on disk: those that would be lost otherwise, or with `durable` every one.

The folder of a project is shared by any number of processes. Each appends to segments of its own;
what a process leaves behind when it ends is taken over by one that lives. Knows files, not HTTP.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from time import monotonic, time
from typing import Final

from analytics_sdk._limits import SPOOL_EXPIRY_DAYS
from analytics_sdk.folders import (
    DAMAGED,
    NAME,
    SpoolUnusableError,
    about,
    folder_name,
    make_folder,
)
from analytics_sdk.segment import Segment, record, settled_offset

MAX_SEGMENT_BYTES: Final = 33_554_432
MIN_SEGMENT_BYTES: Final = 65_536
EXPIRY_S: Final = SPOOL_EXPIRY_DAYS * 86_400
# How often a spool that is full or out of order looks again, and how often it is written through.
LOOK_AGAIN_S: Final = 1.0
MAX_FAILED_READS: Final = 5


class SpoolFullError(OSError):
    """The folder has reached its limit; what is there was promised to be kept."""


@dataclass(slots=True)
class Mark:
    """Where a lot of events ends on disk, and how many of them have no outcome yet."""

    segment: Segment
    offset: int
    left: int


@dataclass(frozen=True, slots=True)
class Reading:
    """Events from the disk."""

    events: list[bytes]
    mark: Mark
    expired: int = 0
    lost: int = 0
    """Events that bad bytes made unreadable."""


class Spool:
    """The segments of this process, and those it takes over.

    Not thread-safe by itself: `append()`, `read()` and `settle()` are called under the outbox's
    lock, the adopting methods by the worker's thread only. `append()` may be re-entered by a signal
    handler.
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
        self._about = about(api_key, api_url)
        self._name = folder_name(api_key)
        self._directory = directory
        self._max_bytes = max_bytes
        self._segment_bytes = min(max(max_bytes // 8, MIN_SEGMENT_BYTES), MAX_SEGMENT_BYTES)
        self._is_synced = is_synced
        self._clock = clock
        self._folder: Path | None = None
        self._prefix = f"{int(clock() * 1000):013d}-{os.getpid()}-{os.urandom(4).hex()}"
        self._number = 0
        self._own: list[Segment] = []
        self._active: Segment | None = None
        self._front: Segment | None = None
        self._reserved = 0
        self._used_bytes = 0
        self._measured_at = self._failed_at = -inf
        self._failure = ""
        self._orphans: deque[Path] = deque()
        self._adopted: Segment | None = None

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

    def spill(self, events: Sequence[bytes], *, in_hand: bool) -> Mark:
        """
        Write *events*, which are older than what `append()` wrote since `begin()`.

        With *in_hand* they are somebody's already, else `read()` returns them some time. Raises
        OSError, and then nothing of them is on disk.
        """
        now_s = int(self._clock())
        records = b"".join(record(event, now_s) for event in events)
        self._make_room(len(records))
        if self._front is None:
            self._front = self._create(self._reserved)
        front = self._front
        self._write(front, records)
        if in_hand:
            front.read_at = front.end
        else:
            front.waiting += len(events)
        return self._mark(front, len(events))

    def _write(self, segment: Segment, records: bytes) -> None:
        segment.append(records)
        self._used_bytes += len(records)
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
        is_measured = self._measured_at > -inf
        if is_measured and self._used_bytes + size_bytes <= self._max_bytes:
            return
        if monotonic() - self._measured_at >= LOOK_AGAIN_S:
            self._measure()
        if self._used_bytes + size_bytes > self._max_bytes:
            raise SpoolFullError(errno.ENOSPC, "The spool has reached spool_max_bytes")

    def _measure(self) -> None:
        """Add up what all processes have in the folder."""
        self._measured_at = monotonic()
        with os.scandir(self._open_folder()) as entries:
            self._used_bytes = sum(_size(entry) for entry in entries)

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
        # It is an estimate between two looks anyway.
        with suppress(OSError):
            self._measure()
        return active

    def _create(self, number: int) -> Segment:
        folder = self._open_folder()
        try:
            segment = Segment.create(folder / f"{self._prefix}-{number:010d}.seg")
        except FileNotFoundError:
            # Somebody deleted the folder.
            self._folder = None
            folder = self._open_folder()
            segment = Segment.create(folder / f"{self._prefix}-{number:010d}.seg")
        if self._is_synced:
            try:
                _sync_directory(folder)
            except OSError:
                with suppress(OSError):
                    segment.remove()
                raise
        self._own.append(segment)
        return segment

    def _open_folder(self) -> Path:
        """Return the project's folder, made and found safe; raises OSError."""
        if self._folder is None:
            if monotonic() - self._failed_at < LOOK_AGAIN_S:
                raise SpoolUnusableError(errno.EACCES, self._failure)
            try:
                folder = make_folder(self._directory, self._name, self._about)
            except OSError as error:
                self._failed_at, self._failure = monotonic(), str(error)
                raise
            self._folder = folder
        return self._folder

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
        if unsynced and self._folder is not None:
            _sync_directory(self._folder)

    # Reading

    def read(self, max_events: int, max_bytes: int) -> Reading | None:
        """Return the oldest events of this process that nobody has in hand, None if none wait."""
        waiting = (own for own in self._own if own.waiting)
        segment = min(waiting, key=lambda own: own.path.name, default=None)
        if segment is None:
            return None
        try:
            reading = self._read(segment, max_events, max_bytes)
        except OSError:
            segment.failed_reads += 1
            if segment.failed_reads < MAX_FAILED_READS:
                raise
            # A bad place on the disk: what lies behind it in other files must not wait for ever.
            segment.is_damaged = segment.is_spent = True
            segment.read_at = segment.end
            reading = Reading([], self._mark(segment, 0))
        segment.waiting -= len(reading.events) + reading.expired
        if segment.read_at < segment.end:
            # How many events the bad bytes were shows at the end.
            return replace(reading, lost=0)
        lost, segment.waiting = segment.waiting, 0
        return replace(reading, lost=lost)

    def _read(self, segment: Segment, max_events: int, max_bytes: int) -> Reading:
        chunk = segment.read(max_events, max_bytes)
        oldest = self._clock() - EXPIRY_S
        fresh = [
            event
            for event, taken_at in zip(chunk.events, chunk.taken_at, strict=True)
            if taken_at >= oldest
        ]
        expired = len(chunk.events) - len(fresh)
        return Reading(fresh, self._mark(segment, len(fresh)), expired, chunk.damaged)

    def _mark(self, segment: Segment, events: int) -> Mark:
        segment.in_hand += events
        return Mark(segment, segment.read_at, events)

    def settle(self, mark: Mark, events: int) -> None:
        """Note that *events* of those behind *mark* have their outcome."""
        mark.left -= events
        mark.segment.in_hand -= events
        if mark.left > 0:
            return
        segment = mark.segment
        # If it can't be noted, the next process sends them again, and the ids keep them single.
        with suppress(OSError):
            if segment is self._adopted or not segment.is_done:
                # A note for nothing would be one more thing to read past, and so for ever.
                if events and not segment.is_spent:
                    segment.settle(mark.offset, int(self._clock()))
            elif segment is self._active and not segment.is_spent and segment.is_linked:
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
        self._bury(segment)

    # Taking over

    def look_for_orphans(self) -> None:
        """List the segments in the folder that are not ours; some belong to the living.

        Raises OSError if the folder is not safe to read.
        """
        self._orphans.clear()
        if self._folder is None and not (self._directory / self._name).exists():
            return
        folder = self._open_folder()
        ours = {segment.path.name for segment in self._own}
        self._orphans.extend(
            path
            for path in sorted(folder.iterdir())
            if NAME.fullmatch(path.name) and path.name not in ours
        )

    def adopt(self, max_events: int, max_bytes: int) -> Reading | None:
        """Return events that a process which ended has left, None if there are none."""
        while self._adopted is not None or self._orphans:
            if self._adopted is None:
                self._adopt_next(self._orphans.popleft())
                continue
            if self._adopted.read_at < self._adopted.end:
                try:
                    return self._read(self._adopted, max_events, max_bytes)
                except OSError:
                    # A bad place on the disk must not keep what lies elsewhere.
                    self._let_go_of_adopted()
                    raise
            if self._adopted.in_hand:
                return None
            self._bury(self._adopted)
            self._adopted = None
        return None

    def _adopt_next(self, path: Path) -> None:
        self._adopted = Segment.adopt(path)
        if self._adopted is not None:
            try:
                self._adopted.read_at = settled_offset(self._adopted)
            except OSError:
                self._let_go_of_adopted()
                raise
        elif path.exists():
            # Somebody has it: its owner, or who took over, and goes on with what comes after it.
            # Else the events of one process would be sent by two, in any order.
            while self._orphans and _process_of(self._orphans[0]) == _process_of(path):
                self._orphans.popleft()

    def _bury(self, segment: Segment) -> None:
        """Remove a segment that is done with; keep one with bad bytes for whoever wants to look."""
        with suppress(OSError):
            if segment.is_damaged:
                segment.path.rename(segment.path.with_suffix(DAMAGED))
                segment.close()
            else:
                segment.remove()

    # Ending

    def close(self) -> None:
        """Let go of every segment; others may take over what is left in them."""
        for segment in self._own:
            with suppress(OSError):
                if segment.is_done:
                    self._bury(segment)
                else:
                    segment.close()
        self._own, self._active, self._front = [], None, None
        self.release()

    def release(self) -> None:
        """Let go of what was taken over."""
        self._let_go_of_adopted()
        self._orphans.clear()

    def _let_go_of_adopted(self) -> None:
        adopted, self._adopted = self._adopted, None
        if adopted is not None:
            with suppress(OSError):
                adopted.close()

    def abandon(self) -> None:
        """Close the files in a forked child; the parent keeps them and its locks."""
        for segment in self._own:
            with suppress(OSError):
                segment.close()
        self.release()


def _size(entry: os.DirEntry[str]) -> int:
    # Another process may delete it while we look.
    with suppress(OSError):
        return entry.stat(follow_symlinks=False).st_size
    return 0


def _process_of(path: Path) -> str:
    return path.name.rpartition("-")[0]


def _sync_directory(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
