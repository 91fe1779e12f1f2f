"""Send dead letters through once more.

Refused events go the way of a batch, from the decoder to the store, as if they arrived when they
first did; only limits are not asked. What a consumer could not apply is given to it again. A letter
that succeeds is removed. Who is interrupted in between sends it again, and the message id (for a
consumer, the transaction) keeps it single.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, Literal, NamedTuple
from uuid import UUID, uuid5

import orjson

from analytics_collector.errors import Refusal
from analytics_collector.ingest import decode
from analytics_collector.ingest.pipeline import Pipeline
from analytics_collector.ingest.rejected import DECODE, stage_of
from analytics_collector.interfaces import DeadLetterBox
from analytics_collector.model import ApiKey, KeptLetter, LetterFilter, RawBatch

MAX_AT_ONCE: Final = 500
# The id of an event that came without one, made of its letter's: the same in each replay.
_NAMESPACE: Final = UUID("5c2f0b52-6f0e-5d0c-9a53-0f6c8f6f3f0a")

Outcome = Literal["stored", "duplicate", "applied", "rejected", "incomplete", "gone"]


class Verdict(NamedTuple):
    """What became of a letter, or would: `code` and `field` tell why it was rejected again."""

    letter_id: int
    outcome: Outcome
    message_id: str | None
    code: str | None = None
    field: str | None = None


class Replay(NamedTuple):
    """The verdicts on some letters, and the id of the last one if there may be more behind it."""

    verdicts: list[Verdict]
    next: int | None


Reapply = Callable[[KeptLetter, bool], Awaitable[Verdict]]
"""Gives a letter to its consumer again, or only tries that; removes it if that succeeds."""


class Replayer:
    """Replays letters of any project."""

    def __init__(self, letters: DeadLetterBox, pipeline: Pipeline, reapply: Reapply) -> None:
        self._letters = letters
        self._pipeline = pipeline
        self._reapply = reapply

    async def replay(
        self, wanted: LetterFilter, limit: int = MAX_AT_ONCE, *, dry_run: bool = False
    ) -> Replay:
        """Replay up to *limit* of the letters, the oldest first; with *dry_run* change nothing.

        Raises `StoreUnavailable`; what was replayed until then is, and may be asked for again.
        """
        letters = await self._letters.in_order(wanted, limit)
        keys: dict[int, ApiKey] = {}
        verdicts = []
        for letter in letters:
            if letter.project_id not in keys:
                settings = await self._letters.settings_of(letter.project_id)
                keys[letter.project_id] = ApiKey(
                    0, letter.project_id, frozenset(), None, settings=settings
                )
            verdicts.append(await self._replay(letter, keys[letter.project_id], dry_run))
        return Replay(verdicts, letters[-1].letter_id if len(letters) == limit else None)

    async def _replay(self, letter: KeptLetter, key: ApiKey, dry_run: bool) -> Verdict:
        if not letter.is_whole:
            return Verdict(letter.letter_id, "incomplete", letter.message_id, letter.reason)
        if letter.stage.startswith("consumer:"):
            verdict = await self._reapply(letter, dry_run)
            stage = letter.stage
        else:
            verdict = await self._send(letter, key, dry_run)
            stage = DECODE if verdict.code in decode.REFUSALS else stage_of(verdict.code or "")
        if dry_run:
            return verdict
        if verdict.outcome == "rejected":
            await self._letters.failed(letter, stage, verdict.code or "", verdict.field)
        elif verdict.outcome in ("stored", "duplicate"):
            await self._letters.remove(letter.letter_id, revision=letter.revision)
        return verdict

    async def _send(self, letter: KeptLetter, key: ApiKey, dry_run: bool) -> Verdict:
        try:
            raw = _batch_of(letter)
        except Refusal as exc:
            return Verdict(letter.letter_id, "rejected", letter.message_id, exc.code)
        if dry_run:
            batch = await self._pipeline.judge(raw, key, letter.received_at)
            rejected = batch.rejected[0] if batch.rejected else None
            is_duplicate = bool(batch.rows) and await self._letters.is_stored(
                letter.project_id, batch.rows[0].message_id
            )
        else:
            is_duplicate, rejected = await self._pipeline.replay(raw, key, letter.received_at)
        message_id = _message_id(raw)
        if rejected is not None:
            return Verdict(letter.letter_id, "rejected", message_id, rejected.code, rejected.field)
        return Verdict(letter.letter_id, "duplicate" if is_duplicate else "stored", message_id)


def _batch_of(letter: KeptLetter) -> RawBatch:
    """Return the event of *letter* as it came, with the id that it was given if it had none."""
    sent_at = orjson.dumps(letter.sent_at).decode()
    raw = decode.parse(f'{{"batch":[{letter.payload}],"sentAt":{sent_at}}}'.encode())
    [event] = raw.events
    if isinstance(event, dict) and event.get("messageId") is None:
        given = letter.message_id or uuid5(_NAMESPACE, f"{letter.project_id} {letter.letter_id}")
        event["messageId"] = str(given)
    return raw


def _message_id(raw: RawBatch) -> str | None:
    value = raw.events[0].get("messageId") if isinstance(raw.events[0], dict) else None
    return value if isinstance(value, str) else None
