"""What is read from a segment, of this process or another, and what becomes of the segment."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from analytics_sdk._limits import SPOOL_EXPIRY_DAYS
from analytics_sdk.folders import DAMAGED
from analytics_sdk.segment import Segment

EXPIRY_S: Final = SPOOL_EXPIRY_DAYS * 86_400


@dataclass(slots=True)
class Mark:
    """Where a lot of events ends on disk, and how many of them have no outcome yet."""

    segment: Segment
    offset: int
    left: int

    def settle(self, events: int) -> bool:
        """Note that *events* of the lot have their outcome; tell whether all have."""
        self.left -= events
        self.segment.in_hand -= events
        return self.left <= 0

    def keep(self, now_s: int) -> None:
        """Write to the segment that nothing before this mark needs delivery any more."""
        # If it can't be noted, the next process sends them again, and the ids keep them single.
        if not self.segment.is_spent:
            with suppress(OSError):
                self.segment.settle(self.offset, now_s)


@dataclass(frozen=True, slots=True)
class Reading:
    """Events from the disk."""

    events: list[bytes]
    mark: Mark
    expired: int = 0
    lost: int = 0
    """Events that bad bytes made unreadable."""


def read(segment: Segment, max_events: int, max_bytes: int, now_s: float) -> Reading:
    """Put the next events of *segment* in hand, but for those that are too old. Raises OSError."""
    chunk = segment.read(max_events, max_bytes)
    oldest = now_s - EXPIRY_S
    fresh = [
        event
        for event, taken_at in zip(chunk.events, chunk.taken_at, strict=True)
        if taken_at >= oldest
    ]
    expired = len(chunk.events) - len(fresh)
    return Reading(fresh, put_in_hand(segment, len(fresh)), expired, chunk.damaged)


def put_in_hand(segment: Segment, events: int) -> Mark:
    """Count *events*, the last of those before `read_at`, as in hand, and mark where they end."""
    segment.in_hand += events
    return Mark(segment, segment.read_at, events)


def bury(segment: Segment) -> None:
    """Remove a segment that is done with; keep one with bad bytes for whoever wants to look."""
    with suppress(OSError):
        if segment.is_damaged:
            segment.path.rename(segment.path.with_suffix(DAMAGED))
            segment.close()
        else:
            segment.remove()
