"""ACCEPT: the way of a batch through the collector. Read this first.

    admit (requests) → [the body is read] → decode → validate → schemas → admit (events)
        → enrich → sessions → write → accepted

A stage never calls the one before it and never knows the one after. Every event leaves with
exactly one outcome: stored, duplicate, or rejected with a code.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple

from analytics_collector import metrics
from analytics_collector.errors import Refusal
from analytics_collector.ingest import decode
from analytics_collector.ingest.buckets import Allowance
from analytics_collector.ingest.enrich.stage import Enricher
from analytics_collector.ingest.limit import RateLimiter
from analytics_collector.ingest.quota import MonthlyQuota
from analytics_collector.ingest.rejected import RejectedEvents
from analytics_collector.ingest.schemas import SchemaChecks, Verdict
from analytics_collector.ingest.sessions import Sessions
from analytics_collector.ingest.turnstile import Turnstile
from analytics_collector.ingest.validate import validate
from analytics_collector.ingest.visitor import with_visitor
from analytics_collector.ingest.write import GroupWriter, Stored
from analytics_collector.model import (
    NO_SENDER,
    Accepted,
    ApiKey,
    RawBatch,
    Rejection,
    Sender,
    ValidBatch,
)
from analytics_collector.usage import KeyUsage

_ACCEPTED = metrics.EVENTS.labels("accepted")
_DUPLICATE = metrics.EVENTS.labels("duplicate")
_REJECTED = metrics.EVENTS.labels("rejected")


class Replayed(NamedTuple):
    """What became of one event that was sent through once more."""

    is_duplicate: bool
    rejected: Rejection | None


class Examined(NamedTuple):
    """What would become of a batch. One of which no event is accepted would be refused."""

    event_count: int
    rejected: list[Rejection]
    verdicts: list[Verdict]


class Pipeline:
    """The stages, joined."""

    def __init__(
        self,
        limiter: RateLimiter,
        writer: GroupWriter,
        *,
        usage: KeyUsage | None = None,
        schemas: SchemaChecks | None = None,
        enricher: Enricher | None = None,
        sessions: Sessions | None = None,
        quota: MonthlyQuota | None = None,
        rejected: RejectedEvents | None = None,
    ) -> None:
        self._limiter = limiter
        self._writer = writer
        self._usage = usage or KeyUsage()
        self._schemas = schemas
        self._enricher = enricher
        self._sessions = sessions
        self._quota = quota
        self._rejected = rejected
        self._turnstile = Turnstile()

    async def admit(self, key: ApiKey) -> Allowance:
        """Count a request of *key* against its limit."""
        return await self._limiter.admit(key)

    async def check_quota(self, key: ApiKey) -> None:
        """Raise `Refusal` if the project of *key* has stored all that it may this month."""
        if self._quota is not None:
            await self._quota.check(key)

    async def accept(
        self,
        body: bytes,
        gzipped: bool,
        key: ApiKey,
        reserve: Callable[[int], None],
        *,
        sender: Sender = NO_SENDER,
    ) -> Accepted:
        """Store the events of *body*; return when they are committed, or safe in the spool.

        *reserve* is told how many bytes the inflated body takes, and may refuse. *sender* is who
        sent it, if that was the browser itself.
        Raises `Refusal` if the body as a whole can't be taken, and `StoreUnavailable` if Postgres
        did not confirm; none of its events is then acknowledged.
        """
        received_at = datetime.now(UTC)
        await self._turnstile.enter(key.project_id, body, gzipped)
        raw, size_bytes = self._decode(body, gzipped, key, reserve, received_at)
        self._limiter.check_events(key, len(raw.events))
        batch = await self.judge(raw, key, received_at, is_counted=True)
        visitor = None
        if sender.remembered_id is not None and batch.rows:
            batch, visitor = with_visitor(batch, sender.remembered_id)
        if batch.rows:
            await self._limiter.admit_events(key, batch.rows)
        batch, stored = await self._store(batch, key, sender, size_bytes)
        rejected = _all_rejected(batch, stored)
        if rejected and self._rejected is not None:
            self._rejected.note(raw, rejected, key, received_at)
        acknowledged = len(batch.rows) - len(stored.refused)
        self._usage.events(key.key_id, acknowledged, len(rejected))
        return _outcome(batch, stored, rejected, visitor)

    async def judge(
        self, raw: RawBatch, key: ApiKey, received_at: datetime, *, is_counted: bool = False
    ) -> ValidBatch:
        """Return which events of *raw* can be stored, and why the others can't.

        What schemas have against them stands in the report on schemas only if *is_counted*.
        """
        batch = validate(raw, key.project_id, received_at)
        if self._schemas is None or not batch.rows:
            return batch
        if is_counted:
            return await self._schemas.check(batch, key)
        return (await self._schemas.examine(batch, key))[0]

    async def examine(
        self, body: bytes, gzipped: bool, key: ApiKey, reserve: Callable[[int], None]
    ) -> Examined:
        """Return what `accept` would make of *body*; nothing is stored, nothing is counted.

        Raises `Refusal` as that does, but for limits and for what only the store can say.
        """
        await self._turnstile.enter(key.project_id, body, gzipped)
        inflated = decode.inflate(body) if gzipped else body
        reserve(len(inflated))
        batch = validate(decode.parse(inflated), key.project_id, datetime.now(UTC))
        verdicts: list[Verdict] = []
        if self._schemas is not None and batch.rows:
            batch, verdicts = await self._schemas.examine(batch, key)
        rejected = sorted(batch.rejected, key=lambda rejection: rejection.index)
        return Examined(len(batch.rows), rejected, verdicts)

    async def replay(self, raw: RawBatch, key: ApiKey, received_at: datetime) -> Replayed:
        """Store the one event of *raw*, which was refused at *received_at*, if it can be now.

        No limit is asked, and nothing is noted or counted. Raises `StoreUnavailable`.
        """
        batch = await self.judge(raw, key, received_at)
        batch, stored = await self._store(batch, key, NO_SENDER, 0)
        rejected = _all_rejected(batch, stored)
        return Replayed(bool(stored.duplicates), rejected[0] if rejected else None)

    async def _store(
        self, batch: ValidBatch, key: ApiKey, sender: Sender, size_bytes: int
    ) -> tuple[ValidBatch, Stored]:
        if self._enricher:
            batch = self._enricher.enrich(batch, key, sender)
        if self._sessions and key.settings.enrichment.session:
            batch = await self._sessions.attach(batch)
        if not batch.rows:
            return batch, Stored([], [])
        return batch, await self._writer.write(batch.rows, size_bytes)

    def _decode(
        self,
        body: bytes,
        gzipped: bool,
        key: ApiKey,
        reserve: Callable[[int], None],
        received_at: datetime,
    ) -> tuple[RawBatch, int]:
        inflated = body
        try:
            if gzipped:
                inflated = decode.inflate(body)
            reserve(len(inflated))
            return decode.parse(inflated), len(inflated)
        except Refusal as exc:
            if self._rejected is not None and exc.code in decode.REFUSALS:
                self._rejected.note_body(inflated, exc.code, key, received_at)
            raise


def _all_rejected(batch: ValidBatch, stored: Stored) -> list[Rejection]:
    return batch.rejected + [
        Rejection(batch.indexes[position], batch.rows[position].message_id, "INTERNAL_INVALID")
        for position in stored.refused
    ]


def _outcome(
    batch: ValidBatch, stored: Stored, rejected: list[Rejection], visitor: str | None
) -> Accepted:
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
    return Accepted(event_count, duplicates, rejected, stored.durability, visitor)
