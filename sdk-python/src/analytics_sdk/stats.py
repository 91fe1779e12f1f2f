"""Count what becomes of every event: one outcome each, and a word for every refusal.

taken == delivered + queued + spooled + rejected + expired + sum(dropped.values())
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Stats:
    """What a client did so far in this process; every number only counts events of this process."""

    taken: int = 0
    """Events for which an event method returned True, and those taken over (`adopted`)."""
    delivered: int = 0
    """Events that the collector answered for, duplicates included."""
    queued: int = 0
    """Events waiting in memory or on their way."""
    spooled: int = 0
    """Events waiting on disk."""
    rejected: int = 0
    """Events that the collector refused; `on_error` got each."""
    expired: int = 0
    """Events that waited on disk for too long."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Events lost after they were taken, by reason."""
    refused: dict[str, int] = field(default_factory=dict)
    """Calls that returned False, by reason."""
    repaired: dict[str, int] = field(default_factory=dict)
    """Values (and hooks) that had to be mended so that their event could go, by kind."""
    duplicates: int = 0
    """Delivered events that the collector had already."""
    requests: int = 0
    """Requests made."""
    retries: int = 0
    """Requests that repeated one before."""
    adopted: int = 0
    """Events among those taken that a process which ended had left on disk."""
    bytes_sent: int = 0
    """Bytes of bodies sent, compressed, repeats included."""


class Counters:
    """The running numbers behind `Stats`.

    The lock is re-entrant: a signal handler or `__del__` that tracks in the middle of a track of
    the same thread must get through. It is held for a few lines and the spool's writes, never for
    the network or foreign code.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.taken = 0
        self.delivered = 0
        self.rejected = 0
        self.expired = 0
        self.adopted = 0
        self.duplicates = 0
        self.requests = 0
        self.retries = 0
        self.bytes_sent = 0
        self._dropped: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._repaired: Counter[str] = Counter()

    def refuse(self, reason: str) -> None:
        """Count a call that returned False."""
        with self.lock:
            self._refused[reason] += 1

    def repair(self, kinds: Iterable[str]) -> None:
        """Count one mended value for each of *kinds*."""
        with self.lock:
            self._repaired.update(kinds)

    def drop(self, reason: str, count: int) -> None:
        """Count *count* events that were taken and are lost."""
        with self.lock:
            self._dropped[reason] += count

    def request(self, size_bytes: int, *, is_retry: bool) -> None:
        """Count a request with a body of *size_bytes*."""
        with self.lock:
            self.requests += 1
            self.retries += is_retry
            self.bytes_sent += size_bytes

    def stats(self, queued: int, spooled: int = 0) -> Stats:
        """Return the numbers of this instant; call it with the lock held, if *queued* may move."""
        with self.lock:
            return Stats(
                taken=self.taken + self.adopted,
                delivered=self.delivered,
                queued=queued,
                spooled=spooled,
                rejected=self.rejected,
                expired=self.expired,
                dropped={reason: count for reason, count in self._dropped.items() if count},
                refused=dict(self._refused),
                repaired=dict(self._repaired),
                duplicates=self.duplicates,
                requests=self.requests,
                retries=self.retries,
                adopted=self.adopted,
                bytes_sent=self.bytes_sent,
            )
