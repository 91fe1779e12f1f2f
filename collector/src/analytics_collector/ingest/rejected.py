"""Rejected events on their way to the dead letters.

Noting one never slows or fails ingest: it goes into a bounded buffer, and what finds no room is
counted and let go, as is what Postgres does not take. A writer empties the buffer in the
background, in groups, with a pause after each, so that nobody keeps Postgres busy with bad events.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple

from analytics_collector import metrics
from analytics_collector.background import Rounds
from analytics_collector.errors import StoreUnavailable
from analytics_collector.ingest.payload import (
    MAX_FRAGMENT_BYTES,
    event_of,
    facts_of,
    fragment,
    scrubbed,
    storable,
    written,
)
from analytics_collector.interfaces import DeadLetterStore
from analytics_collector.model import ApiKey, DeadLetter, EventRow, RawBatch, Rejection
from analytics_collector.project_settings import Privacy, ProjectSettings

logger = logging.getLogger(__name__)

MAX_WAITING: Final = 5_000
MAX_WAITING_BYTES: Final = 16 * 1_024 * 1_024
# What one project may take of it: the noise of one must not hide the mistakes of another.
PROJECT_SHARE: Final = 0.4
_GROUP: Final = 250
_GROUP_BYTES: Final = 1_024 * 1_024
_PAUSE_S: Final = 0.25
_TRIES: Final = 5
_RETRY_S: Final = 1.0
_SPACE_BYTES: Final = 512
"""About what one takes beside its payload."""

_UNKNOWN: Final = 0
"""The id of a key that nobody remembers."""
# What was to be stored holds nothing any more that its project does not let be stored.
_IS_CLEAN: Final = ProjectSettings(privacy=Privacy(ip="full", url_query="keep"))

DECODE: Final = "decode"
_STAGE_OF_CODE: Final = {"INTERNAL_INVALID": "store", "SCHEMA_VIOLATION": "schema"}


def stage_of(code: str) -> str:
    """Return which stage refuses an event with *code*."""
    return _STAGE_OF_CODE.get(code, "validate")


class _Noted(NamedTuple):
    letter: DeadLetter
    """Its payload as it came."""
    key: ApiKey


class RejectedEvents:
    """The buffer. What is noted is taken by `RejectedWriter`."""

    def __init__(self) -> None:
        self._waiting: deque[_Noted] = deque()
        self._bytes = 0
        self._per_project: Counter[int] = Counter()
        self._bytes_per_project: Counter[int] = Counter()

    def note(
        self, batch: RawBatch, rejected: Sequence[Rejection], key: ApiKey, received_at: datetime
    ) -> None:
        """Note those events of *batch* that were *rejected*."""
        sent_at = batch.sent_at if isinstance(batch.sent_at, str) else None
        for rejection in rejected:
            if self._is_full(key.project_id):
                metrics.DEAD_LETTERS_DROPPED.inc()
                continue
            event = batch.events[rejection.index]
            payload, is_whole = written(event)
            self._add(
                DeadLetter(
                    key.project_id,
                    stage_of(rejection.code),
                    rejection.code,
                    storable(rejection.field),
                    facts_of(event)[0],
                    key.key_id or None,
                    storable(rejection.message_id),
                    received_at,
                    storable(sent_at),
                    payload,
                    is_whole,
                ),
                key,
            )

    def note_spooled(self, rows: Sequence[EventRow]) -> None:
        """Note *rows*, which were acknowledged from the spool and then refused by the store."""
        for row in rows:
            batch = RawBatch([event_of(row)], None, exact=False)
            refused = Rejection(0, row.message_id, "INTERNAL_INVALID")
            sender = ApiKey(_UNKNOWN, row.project_id, frozenset(), None, settings=_IS_CLEAN)
            self.note(batch, [refused], sender, row.received_at)

    def note_body(self, body: bytes, code: str, key: ApiKey, received_at: datetime) -> None:
        """Note a whole *body* that could not be read, with its beginning."""
        if self._is_full(key.project_id):
            metrics.DEAD_LETTERS_DROPPED.inc()
            return
        text = body[:MAX_FRAGMENT_BYTES].decode("utf-8", "replace")
        self._add(
            DeadLetter(
                *(key.project_id, DECODE, code, None, None, key.key_id, None),
                *(received_at, None, text, False),
            ),
            key,
        )

    def take(self) -> list[_Noted]:
        """Return what was noted first, at most so much as is written at once."""
        group: list[_Noted] = []
        size_bytes = 0
        while self._waiting and len(group) < _GROUP and size_bytes < _GROUP_BYTES:
            noted = self._waiting.popleft()
            size = _size(noted.letter)
            size_bytes += size
            self._bytes -= size
            self._per_project[noted.letter.project_id] -= 1
            self._bytes_per_project[noted.letter.project_id] -= size
            group.append(noted)
        if not self._waiting:
            self._per_project.clear()
            self._bytes_per_project.clear()
        return group

    def _add(self, letter: DeadLetter, key: ApiKey) -> None:
        size = _size(letter)
        self._waiting.append(_Noted(letter, key))
        self._bytes += size
        self._per_project[letter.project_id] += 1
        self._bytes_per_project[letter.project_id] += size

    def _is_full(self, project_id: int) -> bool:
        return (
            len(self._waiting) >= MAX_WAITING
            or self._bytes >= MAX_WAITING_BYTES
            or self._per_project[project_id] >= PROJECT_SHARE * MAX_WAITING
            or self._bytes_per_project[project_id] >= PROJECT_SHARE * MAX_WAITING_BYTES
        )


class RejectedWriter:
    """Writes what was noted, and what is left at the end."""

    def __init__(
        self,
        rejected: RejectedEvents,
        store: DeadLetterStore,
        secret: str,
        max_per_project: int,
        pause_s: float = _PAUSE_S,
    ) -> None:
        """*secret* is the server's: addresses are hashed under it."""
        self._rejected = rejected
        self._store = store
        self._secret = secret.encode()
        self._max_per_project = max_per_project
        self._added: Counter[int] = Counter()
        self._rounds = Rounds("dead letters", self._write_some, pause_s)
        self.start = self._rounds.start

    async def stop(self) -> None:
        """Write what was noted, as far as Postgres takes it at once, then stop."""
        await self._rounds.stop()
        while (group := self._rejected.take()) and await self._write(group, 1):
            pass

    async def _write_some(self) -> None:
        await self._write(self._rejected.take(), _TRIES)

    async def _write(self, group: Sequence[_Noted], tries: int) -> bool:
        """Write *group*; return whether it was taken. What was not is counted as lost."""
        if not group:
            return True
        try:
            letters = [await self._prepared(noted) for noted in group]
            for left in reversed(range(tries)):
                try:
                    await self._store.add(letters)
                    break
                except StoreUnavailable:
                    if not left or await self._rounds.pause(_RETRY_S):
                        raise
        except StoreUnavailable as exc:
            metrics.DEAD_LETTERS_DROPPED.inc(len(group))
            logger.warning("Dead letters lost", extra={"reason": str(exc), "letters": len(group)})
            return False
        except Exception:
            # A fault of ours: it costs these letters; it must not pass unseen, nor end the task.
            metrics.DEAD_LETTERS_DROPPED.inc(len(group))
            logger.exception("Dead letters lost")
            return False
        for letter in letters:
            metrics.DEAD_LETTERS.labels(letter.stage).inc()
        await self._bound(letters)
        return True

    async def _prepared(self, noted: _Noted) -> DeadLetter:
        """Return the letter as it may be stored."""
        await asyncio.sleep(0)  # a large one takes a millisecond: requests go first
        letter, privacy = noted.letter, noted.key.settings.privacy
        if letter.is_whole:
            # As in the stage that enriches: an address has another hash in each project.
            secret = b"%d " % letter.project_id + self._secret
            payload = scrubbed(letter.payload, privacy, secret, letter.received_at)
            if payload is not None:
                return letter._replace(payload=payload)
        payload = fragment(letter.payload, privacy)
        return letter._replace(payload=payload, is_whole=False)

    async def _bound(self, letters: Sequence[DeadLetter]) -> None:
        """Remove what a project has too many of, now and then; the worker does it for good."""
        self._added.update(letter.project_id for letter in letters)
        often = max(self._max_per_project // 10, _GROUP)
        due = [project_id for project_id, count in self._added.items() if count >= often]
        for project_id in due:
            del self._added[project_id]
        if not due:
            return
        try:
            await self._store.bound(due, self._max_per_project)
        except StoreUnavailable as exc:
            logger.warning("Dead letters not bounded", extra={"reason": str(exc)})
        except Exception:
            # A fault of ours, and the worker bounds too: it must not pass unseen, nor end the task.
            logger.exception("Dead letters not bounded")


def _size(letter: DeadLetter) -> int:
    return len(letter.payload) + _SPACE_BYTES
