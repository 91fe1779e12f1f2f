"""Take slices of the shared buckets from Redis, ahead of need and many in one call.

Who finds enough in the slice never waits. Who does not waits for the next call, but not longer
than `PATIENCE_S`: then it goes by the estimate. So does everybody while Redis is away.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import Final

from analytics_collector import metrics
from analytics_collector.ingest.buckets import Bucket
from analytics_collector.interfaces import LeaseRequest, TokenStore, TokensUnavailable

logger = logging.getLogger(__name__)

PATIENCE_S: Final = 0.05
# A call that takes longer than this is taken for lost; less may be our own business.
_SLOW_S: Final = 0.25
_RETRY_S: Final = 0.5
_MAX_PER_CALL: Final = 500
# A slice that lay this long goes back, so that another process may have it.
_KEEP_SLICE_S: Final = 5.0
_SWEEP_S: Final = 1.0
_MAX_HOLDING: Final = 50_000


class Leases:
    """Spends from buckets, and keeps their slices filled. Without a store each is its own."""

    def __init__(
        self, store: TokenStore | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._clock = clock
        self.shared = False
        self._asking: dict[Bucket, None] = {}
        self._holding: dict[Bucket, None] = {}
        self._wake = asyncio.Event()
        self._round: asyncio.Future[None] | None = None
        self._asked_at: float | None = None
        self._sweep_at = clock() + _SWEEP_S
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to share; needs a running event loop."""
        if self._store is not None:
            self.shared = True
            self._task = asyncio.create_task(self._run(self._store), name="token leases")

    async def stop(self) -> None:
        """Give the slices back, if Redis is there."""
        if self._task is None or self._store is None:
            return
        self._task.cancel()
        await asyncio.wait([self._task])
        if self.shared and self._holding:
            await self._give_back(self._store, list(self._holding))

    async def take(self, costs: Sequence[tuple[Bucket, int]]) -> Bucket | None:
        """Take every cost from its bucket, or nothing; return the one that has too little."""
        give_up_at: float | None = None
        asked: set[Bucket] = set()
        while True:
            now = self._clock()
            patient = give_up_at is None or now < give_up_at
            shared = self.shared and patient
            unknown = []
            for bucket, cost in costs:
                if bucket.slice >= cost:
                    continue
                # Redis has just told those who asked; what came in since is not asked for.
                known_at = bucket.left_at if shared and bucket in asked else now
                if bucket.at_most(known_at) < cost:
                    return bucket
                if shared:
                    unknown.append((bucket, cost))
            if not unknown:
                for bucket, cost in costs:
                    self._spend(bucket, cost, now, shared)
                return None
            if give_up_at is None:
                give_up_at = now + PATIENCE_S
            await self._next_round(unknown, give_up_at)
            asked = {bucket for bucket, _ in unknown}

    def give_back(self, bucket: Bucket, cost: int) -> None:
        """Undo a `take` of this process."""
        bucket.slice += cost
        self._holding[bucket] = None

    def take_from_slice(self, bucket: Bucket, cost: int) -> bool:
        """Take *cost* if it is at hand, as it nearly always is; return whether it was."""
        if bucket.slice < cost:
            return False
        bucket.slice -= cost
        if bucket.slice * 2 < bucket.slice_size and self.shared:
            self._ask(bucket)
        return True

    def _spend(self, bucket: Bucket, cost: int, now: float, shared: bool) -> None:
        bucket.spend(cost, now, shared)
        if shared:
            if bucket.slice * 2 < bucket.slice_size:
                self._ask(bucket)
        else:
            metrics.LOCAL_LIMITS.inc()

    def _ask(self, bucket: Bucket) -> None:
        if bucket not in self._asking:
            self._asking[bucket] = None
            self._wake.set()

    async def _next_round(self, unknown: Sequence[tuple[Bucket, int]], give_up_at: float) -> None:
        """Wait until Redis was asked for these; after *give_up_at* go by the estimates."""
        for bucket, cost in unknown:
            bucket.want(max(1, math.ceil(cost - bucket.slice)))
            self._ask(bucket)
        if self._round is None:
            self._round = asyncio.get_running_loop().create_future()
        await asyncio.wait([self._round], timeout=give_up_at - self._clock())
        if self._asked_at is not None and self._clock() - self._asked_at > _SLOW_S:
            self._leave("slow")

    async def _run(self, store: TokenStore) -> None:
        metrics.LIMITS_SHARED.set(1)
        while True:
            try:
                await self._step(store)
                if self.shared and self._clock() >= self._sweep_at:
                    self._sweep_at = self._clock() + _SWEEP_S
                    await self._sweep(store)
            except Exception:
                # The guard round a job: limits must hold, if only in this process.
                logger.exception("Asking for tokens failed unexpectedly")
                self._leave("fault")

    async def _step(self, store: TokenStore) -> None:
        if not self.shared:
            await asyncio.sleep(_RETRY_S)
        else:
            try:
                async with asyncio.timeout(_SWEEP_S):
                    await self._wake.wait()
            except TimeoutError:
                return
        self._wake.clear()
        waiting, self._round = self._round, None
        asking, self._asking = [*self._asking], {}
        try:
            await self._lease(store, asking)
        finally:
            if waiting is not None and not waiting.done():
                waiting.set_result(None)

    async def _lease(self, store: TokenStore, buckets: list[Bucket]) -> None:
        """Ask for slices of *buckets*, none of them to hear whether Redis is back."""
        requests = []
        for bucket in buckets:
            wanted = bucket.needed + max(0, bucket.slice_size - int(bucket.slice))
            least, bucket.needed = bucket.least if bucket.needed else 0, 0
            requests.append(_request(bucket, least, wanted))
        await self._exchange(store, buckets, requests)

    async def _sweep(self, store: TokenStore) -> None:
        """Give back the slices that lay too long."""
        give_back_before = self._clock() - _KEEP_SLICE_S
        stale: list[Bucket] = []
        for bucket in self._holding:  # the longest held come first
            if bucket.slice_at > give_back_before or len(stale) == _MAX_PER_CALL:
                break
            stale.append(bucket)
        if stale:
            await self._give_back(store, stale)

    async def _give_back(self, store: TokenStore, buckets: list[Bucket]) -> None:
        requests = []
        now = self._clock()
        for bucket in buckets:
            self._holding.pop(bucket, None)
            requests.append(_request(bucket, 0, 0, bucket.slice))
            bucket.drop_slice(now)
        await self._exchange(store, buckets, requests)

    async def _exchange(
        self, store: TokenStore, buckets: list[Bucket], requests: list[LeaseRequest]
    ) -> None:
        """Send *requests*, one for each of *buckets*, and note what comes back."""
        self._asked_at = self._clock()
        try:
            answers = await store.lease(requests)
        except TokensUnavailable as exc:
            self._leave(str(exc))
            return
        finally:
            self._asked_at = None
        now = self._clock()
        for bucket, request, answer in zip(buckets, requests, answers, strict=True):
            bucket.owed -= request.owed
            bucket.take_slice(answer.granted, answer.left, now)
            self._holding.pop(bucket, None)
            if bucket.slice > 0:
                self._holding[bucket] = None
        while len(self._holding) > _MAX_HOLDING:
            # Their tokens come back as time fills the bucket.
            del self._holding[next(iter(self._holding))]
        self._come_back()

    def _leave(self, reason: str) -> None:
        if self.shared:
            self.shared = False
            metrics.LIMITS_SHARED.set(0)
            logger.warning("Limits are kept by each process alone", extra={"reason": reason})

    def _come_back(self) -> None:
        if not self.shared:
            self.shared = True
            metrics.LIMITS_SHARED.set(1)
            logger.info("Limits are shared again")


def _request(bucket: Bucket, least: int, wanted: int, back: float = 0.0) -> LeaseRequest:
    return LeaseRequest(bucket.name, bucket.limit, least, wanted, back, bucket.owed)
