"""Hold the events that wait in memory, at most so many and so many bytes.

`put()` may be called from anywhere, a signal handler in the middle of another `put()` included.
An event leaves by `settle()`, which says what became of it; until then it counts as queued.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from math import inf

from analytics_sdk._limits import MAX_QUEUE_BYTES
from analytics_sdk.stats import Counters, Stats


class Buffer:
    """A bounded first-in first-out queue with an account of every event."""

    def __init__(
        self, counters: Counters, max_events: int, max_bytes: int = MAX_QUEUE_BYTES
    ) -> None:
        self._counters = counters
        # The counters' own lock: `stats()` must see events and counts of the same instant.
        self._lock = counters.lock
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._waiting: deque[bytes] = deque()
        self._taken_out = 0
        self._bytes = 0
        self._oldest_at = inf
        self._is_closed = False
        self._waiters: list[tuple[int, threading.Event]] = []

    def put(self, event: bytes) -> int:
        """
        Append *event*; return how many wait now, or 0 if there was no room.

        The newest is turned away, never an older one evicted: that one was promised a try.
        """
        with self._lock:
            waiting = len(self._waiting) + 1
            if (
                waiting + self._taken_out > self._max_events
                or self._bytes + len(event) > self._max_bytes
                or self._is_closed
            ):
                return 0
            self._waiting.append(event)
            self._bytes += len(event)
            self._counters.taken += 1
            if waiting == 1:
                self._oldest_at = time.monotonic()
            return waiting

    def take(self, max_events: int, max_bytes: int) -> list[bytes]:
        """
        Return the oldest events, which stay queued until they are settled.

        At least one if any wait, then as many as *max_bytes* hold, a comma after each.
        """
        events: list[bytes] = []
        with self._lock:
            size_bytes = 0
            while self._waiting and len(events) < max_events:
                size_bytes += len(self._waiting[0]) + 1
                if events and size_bytes > max_bytes:
                    break
                events.append(self._waiting.popleft())
            self._taken_out += len(events)
            if not self._waiting:
                self._oldest_at = inf
        return events

    def settle(
        self, events: list[bytes], *, delivered: int = 0, duplicates: int = 0, rejected: int = 0
    ) -> None:
        """Give account of *events* taken out before; delivered and rejected add up to them."""
        with self._lock:
            # After close() they were counted as dropped, and an event has one outcome.
            if self._is_closed:
                return
            self._taken_out -= len(events)
            self._bytes -= sum(map(len, events))
            self._counters.delivered += delivered
            self._counters.duplicates += duplicates
            self._counters.rejected += rejected
        self._tell_waiters()

    def close(self, reason: str) -> int:
        """Drop whatever is not settled, counted under *reason*; return how many events that was."""
        with self._lock:
            unsettled = len(self._waiting) + self._taken_out
            self._counters.drop(reason, unsettled)
            self._waiting.clear()
            self._taken_out = self._bytes = 0
            self._oldest_at = inf
            self._is_closed = True
        self._tell_waiters()
        return unsettled

    def waiting(self) -> tuple[int, float]:
        """Return how many events wait, and since when (monotonic) the oldest does, inf if none."""
        with self._lock:
            return len(self._waiting), self._oldest_at

    def progress(self) -> tuple[int, int]:
        """Return how many events were ever put, and how many of them have their outcome."""
        with self._lock:
            taken = self._counters.taken
            return taken, taken - len(self._waiting) - self._taken_out

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
            ready = [done for target, done in self._waiters if target <= settled]
        for done in ready:
            done.set()

    def stats(self) -> Stats:
        """Return the account of this instant."""
        with self._lock:
            return self._counters.stats(queued=len(self._waiting) + self._taken_out)
