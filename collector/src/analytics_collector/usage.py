"""How much each key is used: counted in memory, written in the background every few seconds.

What was not written yet is lost when the process is killed: these are statistics, and no limit or
bill goes by them. While the store is away the counts wait, at most `MAX_WAITING` of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from analytics_collector import metrics
from analytics_collector.model import KeyUse

MAX_WAITING: Final = 20_000
_DAY_S: Final = 86_400
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class _Count:
    requests: int = 0
    events: int = 0
    rejected: int = 0
    last_used_at: float = 0.0


class KeyUsage:
    """Counts, by key and day in UTC, what was not written yet."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """*clock* tells seconds since 1970."""
        self._clock = clock
        self._counts: dict[tuple[int, int], _Count] = {}

    def request(self, key_id: int) -> None:
        """Count a request with the key."""
        now = self._clock()
        count = self._count(key_id, now)
        if count is not None:
            count.requests += 1
            count.last_used_at = now

    def events(self, key_id: int, accepted: int, rejected: int) -> None:
        """Count the events of one batch: those acknowledged, duplicates included, and those not."""
        count = self._count(key_id, self._clock())
        if count is not None:
            count.events += accepted
            count.rejected += rejected

    def take(self) -> list[KeyUse]:
        """Return what was counted since the last time, in the order in which it is written."""
        counts, self._counts = self._counts, {}
        return [
            KeyUse(
                key_id,
                (_EPOCH + timedelta(days=day)).date(),
                count.requests,
                count.events,
                count.rejected,
                _EPOCH + timedelta(seconds=count.last_used_at) if count.last_used_at else None,
            )
            for (key_id, day), count in sorted(counts.items())
        ]

    def put_back(self, uses: Sequence[KeyUse]) -> None:
        """Count *uses* again: they could not be written."""
        for use in uses:
            at = datetime(use.day.year, use.day.month, use.day.day, tzinfo=UTC).timestamp()
            count = self._count(use.key_id, at)
            if count is not None:
                count.requests += use.requests
                count.events += use.events
                count.rejected += use.rejected
                if use.last_used_at is not None:
                    count.last_used_at = max(count.last_used_at, use.last_used_at.timestamp())

    def _count(self, key_id: int, at: float) -> _Count | None:
        """Return the count of the key for the day of *at*, or None if too many wait."""
        place = (key_id, int(at) // _DAY_S)
        count = self._counts.get(place)
        if count is None:
            if len(self._counts) >= MAX_WAITING:
                metrics.USAGE_DROPPED.inc()
                return None
            count = self._counts[place] = _Count()
        return count
