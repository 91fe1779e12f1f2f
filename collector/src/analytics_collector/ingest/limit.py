"""How much may be sent: requests of a key, a project, an address; events of a project, a user.

A batch is taken or refused as a whole. What is refused takes nothing, so that trying again does
not push the moment away.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from analytics_collector import metrics
from analytics_collector.errors import Refusal
from analytics_collector.ingest.buckets import Allowance, Bucket, BucketMap
from analytics_collector.ingest.leases import Leases
from analytics_collector.ingest.refusals import Refusals
from analytics_collector.model import ApiKey, EventRow

# Of each kind this many are remembered for certain, and never more than twice as many.
MAX_BUCKETS: Final = 20_000
REQUESTS_PER_KEY: Final = 10_000


@dataclass(frozen=True, slots=True)
class DefaultLimits:
    """What holds where a project has no limits of its own; each for one minute."""

    requests_per_key: int = REQUESTS_PER_KEY
    requests: int | None = None
    events: int = 600_000
    events_per_user: int | None = None
    requests_per_address: int = 100


class RateLimiter:
    """Counts requests and events against the limits of their senders."""

    def __init__(
        self,
        requests_per_minute: int = REQUESTS_PER_KEY,
        *,
        defaults: DefaultLimits | None = None,
        leases: Leases | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._defaults = defaults or DefaultLimits(requests_per_minute)
        self._leases = leases or Leases(clock=clock)
        self._clock = clock
        self._keys = BucketMap(MAX_BUCKETS, lambda key_id: f"key:{key_id}")
        self._projects = BucketMap(MAX_BUCKETS, lambda project_id: f"project:{project_id}")
        self._project_requests = BucketMap(
            MAX_BUCKETS, lambda project_id: f"project-requests:{project_id}"
        )
        self._users = BucketMap(MAX_BUCKETS, _name_of_user)
        self._addresses = BucketMap(MAX_BUCKETS, lambda address: f"address:{address}")
        self._refusals = Refusals()

    async def admit(self, key: ApiKey) -> Allowance:
        """Count a request of *key*, and of its project if that has a limit of requests.

        What is returned tells of the key, or of the limit that refuses.
        """
        limits = key.settings.limits
        limit = limits.requests_per_minute_per_key or self._defaults.requests_per_key
        project_limit = limits.requests_per_minute or self._defaults.requests
        bucket = self._keys.get(key.key_id, limit, self._clock())
        if project_limit is None:
            return await self._count(bucket, "key")
        project = self._project_requests.get(key.project_id, project_limit, self._clock())
        short = await self._leases.take([(bucket, 1), (project, 1)])
        if short is None:
            return bucket.allowance(self._clock(), taken=1)
        return self._refused(short, "project" if short is project else "key")

    async def admit_address(self, address: str) -> Allowance:
        """Count a request that no valid key vouches for."""
        return await self._count(self._address(address), "address")

    def forgive_address(self, address: str) -> None:
        """Take back what was counted: it has turned out that somebody does vouch for it."""
        self._leases.give_back(self._address(address), 1)

    def check_events(self, key: ApiKey, count: int) -> None:
        """Raise `Refusal` if it is certain that *count* events of *key* have to wait.

        Nothing is counted, and where waiting would not help `admit_events` has to tell.
        """
        project = self._project(key)
        if project.at_most(self._clock()) < count <= project.limit:
            raise self._refusal(project, count, bucket_is_project=True)

    async def admit_events(self, key: ApiKey, rows: Sequence[EventRow]) -> None:
        """Count *rows* as events of the project of *key*, and of their users.

        Raises `Refusal`: RATE_LIMITED if they have to wait, BATCH_TOO_LARGE if waiting would not
        help since the limit itself is smaller.
        """
        limits = key.settings.limits
        user_limit = limits.events_per_minute_per_user or self._defaults.events_per_user
        project = self._project(key)
        if user_limit is None and self._leases.take_from_slice(project, len(rows)):
            return
        costs = [(project, len(rows))]
        if user_limit is not None:
            costs += self._costs_of_users(key.project_id, rows, user_limit)
        for bucket, cost in costs:
            if cost > bucket.limit:
                raise _too_large(bucket, "project" if bucket is project else "user")
        short = await self._leases.take(costs)
        if short is not None:
            raise self._refusal(short, dict(costs)[short], bucket_is_project=short is project)

    def hold_s(self, project_id: int) -> float:
        """Return for how long to keep the refusal of a request of this project."""
        return self._refusals.hold_s(project_id, self._clock())

    def _project(self, key: ApiKey) -> Bucket:
        limit = key.settings.limits.events_per_minute or self._defaults.events
        return self._projects.get(key.project_id, limit, self._clock())

    def _costs_of_users(
        self, project_id: int, rows: Sequence[EventRow], limit: int
    ) -> list[tuple[Bucket, int]]:
        users = Counter(row.user_id or row.anonymous_id for row in rows)
        del users[None]  # events of nobody
        now = self._clock()
        return [
            (self._users.get((project_id, user), limit, now), count)
            for user, count in users.items()
        ]

    def _address(self, address: str) -> Bucket:
        return self._addresses.get(address, self._defaults.requests_per_address, self._clock())

    async def _count(self, bucket: Bucket, kind: str) -> Allowance:
        if self._leases.take_from_slice(bucket, 1):
            return bucket.allowance(self._clock(), taken=1)
        if await self._leases.take([(bucket, 1)]) is None:
            return bucket.allowance(self._clock(), taken=1)
        return self._refused(bucket, kind)

    def _refused(self, bucket: Bucket, kind: str) -> Allowance:
        metrics.RATE_LIMITED.labels(kind).inc()
        return bucket.allowance(self._clock(), refused=1)

    def _refusal(self, short: Bucket, cost: int, *, bucket_is_project: bool) -> Refusal:
        kind = "project" if bucket_is_project else "user"
        metrics.RATE_LIMITED.labels(kind).inc()
        allowance = short.allowance(self._clock(), refused=cost)
        return Refusal(
            "RATE_LIMITED",
            f"The limit of {short.limit} events a minute of this {kind} leaves no room for the "
            f"{cost} that the batch has; send it again after Retry-After.",
            headers=headers_of(allowance),
        )


def headers_of(allowance: Allowance) -> dict[str, str]:
    """Return the headers that tell *allowance*."""
    headers = {
        "X-RateLimit-Limit": str(allowance.limit),
        "X-RateLimit-Remaining": str(allowance.remaining),
        "X-RateLimit-Reset": str(allowance.reset_s),
    }
    if allowance.retry_after_s:
        headers["Retry-After"] = str(allowance.retry_after_s)
    return headers


def _too_large(bucket: Bucket, kind: str) -> Refusal:
    return Refusal(
        "BATCH_TOO_LARGE",
        f"The limit of this {kind} is {bucket.limit} events a minute, less than the batch has; "
        "send it in parts.",
    )


def _name_of_user(owner: Any) -> str:
    """Return a name that does not tell who the user is."""
    project_id, user = owner
    return f"user:{project_id}:{hashlib.blake2b(user.encode(), digest_size=16).hexdigest()}"
