"""ACCEPT: the way of a batch through the collector. Read this first.

    admit (limit) → [the body is read] → decode → validate → write → accepted

A stage never calls the one before it and never knows the one after. Every event leaves with
exactly one outcome: stored, duplicate, or rejected with a code.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime

from analytics_collector import metrics
from analytics_collector.errors import Refusal
from analytics_collector.ingest import decode
from analytics_collector.ingest.limit import Allowance, RateLimiter
from analytics_collector.ingest.validate import validate
from analytics_collector.ingest.write import GroupWriter, Stored
from analytics_collector.model import Accepted, ApiKey, Rejection, ValidBatch

_ACCEPTED = metrics.EVENTS.labels("accepted")
_DUPLICATE = metrics.EVENTS.labels("duplicate")
_REJECTED = metrics.EVENTS.labels("rejected")


class Pipeline:
    """The stages, joined."""

    def __init__(self, limiter: RateLimiter, writer: GroupWriter) -> None:
        self._limiter = limiter
        self._writer = writer

    def admit(self, key: ApiKey) -> Allowance:
        """Count a request of *key* against its limit."""
        return self._limiter.take(key.key_id, time.monotonic())

    async def accept(
        self, body: bytes, gzipped: bool, key: ApiKey, reserve: Callable[[int], None]
    ) -> Accepted:
        """Store the events of *body*; return when they are committed.

        *reserve* is told how many bytes the inflated body takes, and may refuse.
        Raises `Refusal` if the body as a whole can't be taken, and `StoreUnavailable` if Postgres
        did not confirm; none of its events is then acknowledged.
        """
        inflated = decode.inflate(body) if gzipped else body
        reserve(len(inflated))
        batch = validate(decode.parse(inflated), key.project_id, datetime.now(UTC))
        stored = (
            await self._writer.write(batch.rows, len(inflated)) if batch.rows else Stored([], [])
        )
        rejected = batch.rejected + [
            Rejection(batch.indexes[position], batch.rows[position].message_id, "INTERNAL_INVALID")
            for position in stored.refused
        ]
        return _outcome(batch, stored, rejected)


def _outcome(batch: ValidBatch, stored: Stored, rejected: list[Rejection]) -> Accepted:
    duplicates = len(stored.duplicates)
    event_count = len(batch.rows) - len(stored.refused)
    _ACCEPTED.inc(event_count - duplicates)
    if duplicates:
        _DUPLICATE.inc(duplicates)
    if rejected:
        _REJECTED.inc(len(rejected))
        for code, count in Counter(rejection.code for rejection in rejected).items():
            metrics.REJECTIONS.labels(code).inc(count)
        rejected.sort(key=lambda rejection: rejection.index)
    if not event_count:
        raise Refusal("ALL_EVENTS_REJECTED", details={"rejected": rejected})
    return Accepted(event_count, duplicates, rejected)
