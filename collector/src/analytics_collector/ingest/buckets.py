"""A token bucket that several processes share, as one of them sees it. Pure: time is passed in.

The tokens themselves are in Redis. A process takes a slice of them ahead and spends it without
asking; beside it stands what was left in Redis when it last asked. Others only ever take from
there, so what was left then, and what has come in since, is the most that there can be now: a
request that not even this would do for is refused without asking.

While Redis is away that estimate itself is the bucket. What was spent of it is owed, and is taken
from Redis when it is back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from typing import Any, Final, NamedTuple

# A bucket holds a minute's worth, so a burst after a pause is welcome.
MINUTE_S: Final = 60.0
# What a process may hold of it. Five processes that all hold a slice and spend it beside a bucket
# that has filled up again are 5 % over the limit of that minute.
SLICE_SHARE: Final = 0.01
# Who waits as long as told finds a token, not one less 1e-16.
_ROUNDING: Final = 1e-6


class Allowance(NamedTuple):
    """The state of a bucket after a request, as the X-RateLimit headers tell it.

    `retry_after_s` is 0 if the request may pass, else the seconds until it may.
    """

    limit: int
    remaining: int
    reset_s: int
    retry_after_s: int = 0


class Bucket:
    """The tokens of one client: a key, a project, a user or an address."""

    __slots__ = (
        "least",
        "left",
        "left_at",
        "limit",
        "name",
        "needed",
        "owed",
        "per_second",
        "slice",
        "slice_at",
        "slice_size",
    )

    def __init__(self, name: str, limit: int, now: float) -> None:
        """A bucket of which nothing is known is full: at most that much is there."""
        self.name = name
        self.slice = 0.0
        self.slice_at = now
        self.left = float(limit)
        self.left_at = now
        self.owed = 0.0
        # What those who wait for the next slice need: in all, and the one who needs least.
        self.needed = 0
        self.least = 0
        self.set_limit(limit)

    def set_limit(self, limit: int) -> None:
        """Go by *limit*, in tokens a minute, from now on."""
        self.limit = limit
        self.per_second = limit / MINUTE_S
        self.slice_size = int(limit * SLICE_SHARE)

    def at_most(self, now: float) -> float:
        """Return the most tokens that can be there, slice and all."""
        return self.slice + self._left(now) + _ROUNDING

    def spend(self, cost: int, now: float, shared: bool) -> None:
        """Take *cost* tokens: of the slice, and unless *shared* also of the estimate."""
        if shared or self.slice >= cost:
            self.slice -= cost
            return
        rest = cost - self.slice
        self.slice = 0.0
        self.left = max(0.0, self._left(now) - rest)
        self.left_at = now
        # The bucket in Redis fills up meanwhile, and is not owed more than this one lacks.
        self.owed = min(self.owed + rest, self.limit - self.left)

    def want(self, cost: int) -> None:
        """Note that somebody waits for *cost* tokens beside the slice."""
        self.least = min(self.least, cost) if self.needed else cost
        self.needed += cost

    def take_slice(self, granted: float, left: float, now: float) -> None:
        """Add the slice that was *granted*, with what is *left* in Redis after it."""
        self.slice += granted
        self.slice_at = now
        self.left = max(0.0, left - self.owed)
        self.left_at = now

    def drop_slice(self, now: float) -> None:
        """Let the slice go back: it is still there, for whoever asks first."""
        self.left = min(float(self.limit), self._left(now) + self.slice)
        self.left_at = now
        self.slice = 0.0

    def allowance(self, now: float, *, taken: int = 0, refused: int = 0) -> Allowance:
        """Return how it stands after *taken* tokens; if *refused*, when so many can be there."""
        tokens = min(self.at_most(now), float(self.limit - taken))
        retry_after_s = 0
        if refused:
            retry_after_s = max(1, math.ceil((refused - tokens) / self.per_second))
        reset_s = math.ceil((self.limit - tokens) / self.per_second)
        return Allowance(self.limit, max(0, int(tokens)), reset_s, retry_after_s)

    def _left(self, now: float) -> float:
        return min(float(self.limit), self.left + (now - self.left_at) * self.per_second)


class BucketMap:
    """The buckets of one kind, of which the longest unused are forgotten.

    There are two generations: when the young one is full the old one is let go. A bucket that is
    asked for moves to the young one. So 1 to 2 times *size* are remembered, at no cost of order.
    """

    def __init__(self, size: int, name_of: Callable[[Any], str]) -> None:
        """*name_of* tells the name in Redis of an owner's bucket."""
        self._size = size
        self._name_of = name_of
        self._young: dict[Hashable, Bucket] = {}
        self._old: dict[Hashable, Bucket] = {}

    def __len__(self) -> int:
        """Return how many buckets are remembered."""
        return len(self._young) + len(self._old)

    def get(self, owner: Hashable, limit: int, now: float) -> Bucket:
        """Return the bucket of *owner*, with this *limit* from now on."""
        bucket = self._young.get(owner)
        if bucket is None:
            bucket = self._old.pop(owner, None) or Bucket(self._name_of(owner), limit, now)
            if len(self._young) >= self._size:
                self._old = self._young
                self._young = {}
            self._young[owner] = bucket
        if bucket.limit != limit:
            bucket.set_limit(limit)
        return bucket
