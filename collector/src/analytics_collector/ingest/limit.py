"""How many requests a key may make: one token bucket a key, in this process. Pure but for memory.

A bucket holds a minute's worth of requests, so a burst after a pause is welcome.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Allowance:
    """The state of a bucket after a request, as the X-RateLimit headers tell it.

    `retry_after_s` is 0 if the request may pass, else the seconds until one may.
    """

    limit: int
    remaining: int
    reset_s: int
    retry_after_s: int


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_at: float


class RateLimiter:
    """Counts the requests of each key against one limit."""

    def __init__(self, limit_per_minute: int) -> None:
        self._limit = limit_per_minute
        self._per_second = limit_per_minute / 60
        self._buckets: dict[int, _Bucket] = {}

    def take(self, key_id: int, now: float) -> Allowance:
        """Take one request from the bucket of *key_id* at monotonic time *now*, in seconds."""
        bucket = self._buckets.get(key_id)
        if bucket is None:
            bucket = self._buckets[key_id] = _Bucket(float(self._limit), now)
        refilled = bucket.tokens + (now - bucket.filled_at) * self._per_second
        bucket.tokens = min(float(self._limit), refilled)
        bucket.filled_at = now
        retry_after_s = 0
        if bucket.tokens >= 1:
            bucket.tokens -= 1
        else:
            retry_after_s = max(1, math.ceil((1 - bucket.tokens) / self._per_second))
        reset_s = math.ceil((self._limit - bucket.tokens) / self._per_second)
        return Allowance(self._limit, int(bucket.tokens), reset_s, retry_after_s)
