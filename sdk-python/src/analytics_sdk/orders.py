"""What the threads of the program want of the one that delivers."""

from __future__ import annotations

import threading
from contextlib import suppress
from math import inf

# More than a lock can wait is an error, so no infinity.
LONGEST_SLEEP_S = 3600.0


class Orders:
    """A few numbers under one lock, and a bell that wakes the thread.

    The lock is the counters' own, which a signal handler may take again.
    """

    def __init__(self, lock: threading.RLock) -> None:
        self._lock = lock
        self.use_new_bell()
        self.close_by: float | None = None
        """When to give up (monotonic); None as long as events are welcome."""
        self.nudges = 0
        """How often somebody asked for an attempt at once."""
        self.flush_target = 0
        """Up to which event somebody waits for the outcome."""
        self._seekers: list[threading.Event] = []

    def use_new_bell(self) -> None:
        """Have a bell of the kind of the thread: gevent may have exchanged both in the meantime."""
        # A lock that is let go to ring. The queues have one kind in C, which stops a whole gevent
        # program, and one of gevent's, which no real thread can use.
        self._bell = threading.Lock()
        self._bell.acquire()

    def ring(self) -> None:
        """Wake the thread."""
        # Another may let go at the same moment (a signal handler just here), and twice is an error.
        with suppress(RuntimeError):
            if self._bell.locked():
                self._bell.release()

    def sleep(self, seconds: float) -> None:
        """Wait until somebody rings, *seconds* at most."""
        self._bell.acquire(timeout=min(max(seconds, 0), LONGEST_SLEEP_S))

    def nudge(self) -> None:
        """Ask for an attempt at once."""
        with self._lock:
            self.nudges += 1
        self.ring()

    def flush(self, target: int) -> None:
        """Ask for the first *target* events to be sent at once."""
        with self._lock:
            self.flush_target = max(self.flush_target, target)
        self.nudge()

    def close(self, by: float) -> float:
        """Ask for an end at *by* (monotonic), or when all is delivered; return when it will be."""
        with self._lock:
            self.close_by = min(inf if self.close_by is None else self.close_by, by)
            close_by = self.close_by
        self.nudge()
        return close_by

    def seek(self) -> threading.Event:
        """Ask for a search for what others left; the event returned is set when all was found."""
        found_all = threading.Event()
        with self._lock:
            self._seekers.append(found_all)
        self.nudge()
        return found_all

    def seekers(self) -> list[threading.Event]:
        """Return who waits for a search to begin, and forget them."""
        with self._lock:
            seekers, self._seekers = self._seekers, []
        return seekers
