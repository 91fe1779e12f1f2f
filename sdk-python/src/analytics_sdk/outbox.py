"""Hold the events that were taken until each has its outcome: in memory, else on disk.

`put()` may be called from anywhere, a signal handler in the middle of another `put()` included.
Events are handed out in order, in lots, and leave by `settle()`, which says what became of them.

What is in memory is always older than what nobody has read from disk yet: as long as something
waits there, new events join it. So the order of the calls is kept, whichever way an event goes.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import islice
from math import inf
from typing import Final

from analytics_sdk._limits import MAX_QUEUE_BYTES
from analytics_sdk.logs import QuietLogger
from analytics_sdk.reading import Mark, Reading
from analytics_sdk.spool import Spool, SpoolFullError
from analytics_sdk.stats import Counters, Stats

# As many as are moved to disk in one go, while callers of `put()` wait.
SPILL_EVENTS: Final = 250
SPILL_BYTES: Final = 262_144


@dataclass(slots=True)
class Lot:
    """Events that were handed out together, in order."""

    events: list[bytes]
    mark: Mark | None = None
    """Where they lie on disk, None if they are in memory only."""
    is_adopted: bool = False
    """Taken over from a process that ended."""


class Outbox:
    """A first-in first-out queue in two places, with an account of every event."""

    def __init__(
        self,
        counters: Counters,
        *,
        max_events: int,
        max_bytes: int = MAX_QUEUE_BYTES,
        spool: Spool | None = None,
        is_durable: bool = False,
    ) -> None:
        self._counters = counters
        # The counters' own lock: `stats()` must see events and counts of the same instant.
        self._lock = counters.lock
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._spool = spool
        self._is_durable = is_durable
        self._log = QuietLogger(__name__)
        self._waiting: deque[bytes] = deque()
        self._waiting_on_disk = 0
        self._spilled = 0
        """How many of those on disk are older than those in memory."""
        self.in_hand: deque[Lot] = deque()
        """What was handed out and has no outcome yet, in order; the worker's, to read."""
        self._out = self._out_on_disk = self._out_adopted = 0
        self._bytes = 0
        self._oldest_at = inf
        self._failure: OSError | None = None
        self.is_closed = False
        self._waiters: list[tuple[int, threading.Event]] = []

    @property
    def has_spool(self) -> bool:
        """Tell whether there is a place on disk, however it fares."""
        return self._spool is not None

    @property
    def is_interrupted(self) -> bool:
        """Tell whether the caller, a signal handler, came in the middle of a call that holds it."""
        # The lock may be taken again, but who has it is told by nothing public.
        return bool(self._lock._is_owned())  # type: ignore[attr-defined]

    # For callers

    def put(self, event: bytes) -> int | str:
        """
        Take *event*; return how many wait now, or the word for why it is refused.

        The newest is turned away, never an older one evicted: that one was promised a try.
        """
        with self._lock:
            waiting = len(self._waiting) + 1
            # Here, for a signal handler may run behind a call, but not inside a `+=` without one.
            size_bytes = len(event)
            if not (
                waiting + self._out > self._max_events
                or self._bytes + size_bytes > self._max_bytes
                or self._waiting_on_disk
                or self._is_durable
                or self.is_closed
            ):
                self._waiting.append(event)
                self._bytes += size_bytes
                self._counters.taken += 1
                if waiting == 1:
                    self._oldest_at = time.monotonic()
                return waiting
            answer = self._put_on_disk(event)
        self._tell()
        return answer

    def _put_on_disk(self, event: bytes) -> int | str:
        if self.is_closed:
            return "closed"
        if self._spool is None:
            return "queue_full"
        is_first = not self._waiting_on_disk
        # Before it is there, for a signal handler in the middle of this joins it.
        self._counters.taken += 1
        self._waiting_on_disk += 1
        try:
            if is_first and not self._is_durable:
                self._spool.begin()
            self._spool.append(event)
        except OSError as error:
            self._counters.taken -= 1
            self._waiting_on_disk -= 1
            if isinstance(error, SpoolFullError):
                return "spool_full"
            self._failure = error
            return "spool_failed" if self._is_durable else self._put_behind_disk(event)
        if self._oldest_at == inf:
            self._oldest_at = time.monotonic()
            # Whatever the number is: a signal handler in the middle of this may have added one.
            return 1
        return len(self._waiting) + self._waiting_on_disk

    def _put_behind_disk(self, event: bytes) -> int | str:
        """Take *event* into memory after all, if what waits on disk is older than all there."""
        is_newest = not self._waiting or self._spilled == self._waiting_on_disk
        is_room = (
            len(self._waiting) + self._out < self._max_events
            and self._bytes + len(event) <= self._max_bytes
        )
        if not (is_newest and is_room) or self._spool is None:
            return "queue_full"
        if not self._waiting:
            self._spool.begin()
            self._spilled = self._waiting_on_disk
        self._waiting.append(event)
        self._bytes += len(event)
        self._counters.taken += 1
        return len(self._waiting) + self._waiting_on_disk

    def _tell(self) -> None:
        """Log what went wrong, without the lock: handlers of the program's have their own."""
        error, self._failure = self._failure, None
        if error is None:
            return
        message = "The spool can't be used, so events wait in memory only, or are turned away"
        # The text of the error names the place on disk, and nothing of a user's.
        self._log.warning("spool_failed", message, failure=str(error))

    # For the worker

    def take(self, max_events: int, max_bytes: int) -> bool:
        """
        Put the oldest events in hand, as a lot; tell whether there were any.

        At least one if any wait, then as many as *max_bytes* hold, a comma after each.
        """
        is_taken = self._take(max_events, max_bytes)
        self._tell()
        return is_taken

    def _take(self, max_events: int, max_bytes: int) -> bool:
        with self._lock:
            # What is left on disk then is the next process's, and not lost.
            if self.is_closed:
                return False
            # What was spilled before the disk was full is older than what is left in memory.
            lot = None if self._spilled else self._take_from_memory(max_events, max_bytes)
            if self._spilled:
                max_events = min(max_events, self._spilled)
            while lot is None and self._waiting_on_disk and self._spool is not None:
                try:
                    reading = self._spool.read(max_events, max_bytes)
                except OSError as error:
                    self._failure = error
                    return False
                lot = self._take_from_disk(reading)
            if not self._waiting and not self._waiting_on_disk:
                self._oldest_at = inf
            return self._hold(lot)

    def _take_from_memory(self, max_events: int, max_bytes: int) -> Lot | None:
        events: list[bytes] = []
        size_bytes = 0
        while self._waiting and len(events) < max_events:
            size_bytes += len(self._waiting[0]) + 1
            if events and size_bytes > max_bytes:
                break
            events.append(self._waiting.popleft())
        self._out += len(events)
        return Lot(events) if events else None

    def _take_from_disk(self, reading: Reading | None) -> Lot | None:
        if reading is None:
            # Counted as waiting, and not there.
            lost, self._waiting_on_disk = self._waiting_on_disk, 0
            self._spilled = 0
            self._counters.drop("spool_damaged", lost)
            return None
        gone = len(reading.events) + reading.expired + reading.lost
        self._waiting_on_disk -= gone
        self._spilled = max(self._spilled - gone, 0)
        self._out_on_disk += len(reading.events)
        return self._lot(reading, is_adopted=False)

    def _lot(self, reading: Reading, *, is_adopted: bool) -> Lot | None:
        self._counters.expired += reading.expired
        if reading.lost:
            self._counters.drop("spool_damaged", reading.lost)
        return Lot(reading.events, reading.mark, is_adopted) if reading.events else None

    def _hold(self, lot: Lot | None) -> bool:
        if lot is not None:
            self.in_hand.append(lot)
        return lot is not None

    def adopt(self, max_events: int, max_bytes: int) -> bool:
        """Put events in hand that a process which ended has left; as `take()` otherwise."""
        lot = None
        while lot is None and self._spool is not None:
            try:
                reading = self._spool.orphans.adopt(max_events, max_bytes)
            except OSError as error:
                self._failure = error
                self._tell()
                continue
            if reading is None:
                return False
            with self._lock:
                if self.is_closed:
                    self._spool.orphans.release()
                    return False
                self._counters.adopted += len(reading.events) + reading.expired + reading.lost
                self._out_adopted += len(reading.events)
                lot = self._lot(reading, is_adopted=True)
        with self._lock:
            return self._hold(lot)

    def look_for_orphans(self) -> None:
        """List what processes that ended may have left."""
        if self._spool is not None:
            try:
                self._spool.orphans.look()
            except OSError as error:
                self._failure = error
                self._tell()

    def split(self) -> None:
        """Make two lots of the first one in hand."""
        with self._lock:
            if not self.is_closed:
                lot = self.in_hand.popleft()
                middle = (len(lot.events) + 1) // 2
                for events in (lot.events[middle:], lot.events[:middle]):
                    self.in_hand.appendleft(Lot(events, lot.mark, lot.is_adopted))

    def settle(
        self,
        only: Collection[int] | None = None,
        *,
        delivered: int = 0,
        duplicates: int = 0,
        rejected: int = 0,
    ) -> None:
        """
        Give account of the first lot in hand, or of the events at *only* these places of it.

        *delivered* and *rejected* add up to them; the others stay in hand.
        """
        with self._lock:
            # After the end all were given account of already.
            if self.is_closed:
                return
            lot = self.in_hand.popleft()
            settled, left = lot.events, []
            if only is not None:
                settled = [lot.events[place] for place in only]
                left = [event for place, event in enumerate(lot.events) if place not in only]
            if left:
                self.in_hand.appendleft(Lot(left, lot.mark, lot.is_adopted))
            self._let_go(lot, settled)
            self._counters.delivered += delivered
            self._counters.duplicates += duplicates
            self._counters.rejected += rejected
        self._tell_waiters()

    def _let_go(self, lot: Lot, settled: Sequence[bytes]) -> None:
        if lot.is_adopted:
            self._out_adopted -= len(settled)
        elif lot.mark is not None:
            self._out_on_disk -= len(settled)
        else:
            self._out -= len(settled)
            self._bytes -= sum(map(len, settled))
        if lot.mark is not None and self._spool is not None:
            keeper = self._spool.orphans if lot.is_adopted else self._spool
            keeper.settle(lot.mark, len(settled))

    def spill(self) -> None:
        """Move to disk what is in memory; without a spool, or with a full disk, it stays there.

        Not while `is_interrupted`: half of it may just be on the way.
        """
        self._spill()
        self._tell()

    def _spill(self) -> None:
        if self._spool is None or self._is_durable:
            return
        try:
            with self._lock:
                if self.is_closed:
                    return
                self._spill_in_hand(self._spool)
            # In pieces, for whoever calls `put()` meanwhile waits.
            while self._waiting and not self.is_closed:
                with self._lock:
                    # What was taken between two pieces is older than the next one.
                    self._spill_in_hand(self._spool)
                    self._spill_waiting(self._spool)
        except SpoolFullError:
            return
        except OSError as error:
            self._failure = error

    def _spill_in_hand(self, spool: Spool) -> None:
        lots = [lot for lot in self.in_hand if lot.mark is None]
        if not self._waiting_on_disk and (lots or self._waiting):
            spool.begin()
        for lot in lots:
            lot.mark = spool.spill_in_hand(lot.events)
            self._out -= len(lot.events)
            self._bytes -= sum(map(len, lot.events))
            self._out_on_disk += len(lot.events)

    def _spill_waiting(self, spool: Spool) -> None:
        events: list[bytes] = []
        size_bytes = 0
        for event in islice(self._waiting, SPILL_EVENTS):
            size_bytes += len(event)
            if events and size_bytes > SPILL_BYTES:
                break
            events.append(event)
        if not events:
            return
        spool.spill(events)
        for _ in events:
            self._bytes -= len(self._waiting.popleft())
        self._waiting_on_disk += len(events)
        self._spilled = self._spilled + len(events) if self._waiting else 0

    def sync(self) -> None:
        """Write through to the disk what the kernel still has."""
        if self._spool is not None:
            try:
                self._spool.sync()
            except OSError as error:
                self._failure = error
                self._tell()

    def close(self) -> tuple[int, int]:
        """
        Take nothing any more; leave what has no outcome on disk. Not while `is_interrupted`.

        Returns how many events are there now, and how many had to be dropped.
        """
        with self._lock:
            if self.is_closed:
                return 0, 0
            self._spill()
            dropped = len(self._waiting) + self._out
            self._counters.drop("shutdown", dropped)
            self._waiting.clear()
            self._out = self._bytes = 0
            self._oldest_at = inf
            self.is_closed = True
            if self._spool is not None:
                lost = self._spool.close()
                self._waiting_on_disk -= lost
                self._counters.drop("spool_damaged", lost)
                dropped += lost
            spooled = self._spooled
        self._tell()
        self._tell_waiters()
        return spooled, dropped

    # For both

    @property
    def _spooled(self) -> int:
        return self._waiting_on_disk + self._out_on_disk + self._out_adopted

    def waiting(self) -> tuple[int, float]:
        """Return how many events wait, and since when (monotonic) the oldest does, inf if none."""
        with self._lock:
            return len(self._waiting) + self._waiting_on_disk, self._oldest_at

    def progress(self) -> tuple[int, int]:
        """Return how many events were ever put, and how many of them have their outcome."""
        with self._lock:
            taken = self._counters.taken
            in_memory = len(self._waiting) + self._out
            return taken, taken - in_memory - self._waiting_on_disk - self._out_on_disk

    def wait(self, target: int, timeout_s: float) -> bool:
        """Wait until the first *target* events put have their outcome; tell whether they have."""
        # An event a caller, not one condition for all: its lock is nobody else's, so a signal
        # handler that interrupts the wait may wait too.
        done = threading.Event()
        with self._lock:
            self._waiters.append((target, done))
        self._tell_waiters()
        done.wait(min(timeout_s, threading.TIMEOUT_MAX))
        with self._lock:
            self._waiters = [waiter for waiter in self._waiters if waiter[1] is not done]
        return self.progress()[1] >= target

    def _tell_waiters(self) -> None:
        with self._lock:
            settled = self.progress()[1]
            ready = [done for target, done in self._waiters if self.is_closed or target <= settled]
        for done in ready:
            done.set()

    def stats(self) -> Stats:
        """Return the account of this instant."""
        with self._lock:
            return self._counters.stats(
                queued=len(self._waiting) + self._out, spooled=self._spooled
            )
