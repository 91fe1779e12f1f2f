"""Give dead letters of consumers to them again."""

from __future__ import annotations

from collections.abc import Sequence

from analytics_collector.adapters.postgres.dead_letters import CONSUMER_STAGE, PostgresDeadLetters
from analytics_collector.adapters.postgres.log import Effect
from analytics_collector.ingest.replay import Verdict
from analytics_collector.model import Cursor, Entry, KeptLetter
from analytics_collector.worker.consumer import is_fault_of_events
from analytics_collector.worker.daily_counts import DailyCounts

EFFECTS: tuple[Effect, ...] = (DailyCounts(),)
_NOWHERE = Cursor(0, 0)


class _Failed(Exception):
    """The effect failed again; what it did is undone."""


class _Tried(Exception):
    """The effect would succeed; what it did is undone."""


class Reapply:
    """Implements `ingest.replay.Reapply`: effect and removal are one transaction."""

    def __init__(self, letters: PostgresDeadLetters, effects: Sequence[Effect] = EFFECTS) -> None:
        self._letters = letters
        self._effects = {CONSUMER_STAGE + effect.name: effect for effect in effects}

    async def __call__(self, letter: KeptLetter, dry_run: bool) -> Verdict:
        """Apply the event of *letter*. Raises `StoreUnavailable`."""
        effect = self._effects.get(letter.stage)
        if effect is None:
            return _verdict(letter, "UnknownConsumer")
        try:
            async with self._letters.taken(letter) as connection:
                if connection is None:
                    return Verdict(letter.letter_id, "gone", letter.message_id)
                entry = Entry(_NOWHERE, _NOWHERE, f"[{letter.payload}]")
                try:
                    await effect.apply(connection, [entry])
                except Exception as exc:
                    if not is_fault_of_events(exc):
                        raise
                    raise _Failed(type(exc).__name__) from exc
                if dry_run:
                    raise _Tried
        except _Failed as exc:
            return _verdict(letter, str(exc))
        except _Tried:
            pass
        return Verdict(letter.letter_id, "applied", letter.message_id)


def _verdict(letter: KeptLetter, code: str) -> Verdict:
    return Verdict(letter.letter_id, "rejected", letter.message_id, code)
