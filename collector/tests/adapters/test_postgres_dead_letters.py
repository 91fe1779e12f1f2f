"""Dead letters in Postgres."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import uuid4

import pytest

from analytics_collector.adapters.postgres.dead_letters import PostgresDeadLetters
from analytics_collector.model import DeadLetter, LetterFilter


@pytest.fixture
def edited(pool, run):
    """Keep a letter, read it, and edit it; return the store, and the letter as it was read."""
    kept = PostgresDeadLetters(pool)
    project_id = uuid4().int % 2**40
    at = datetime.now(UTC)
    letter = DeadLetter(
        *(project_id, "validate", "MISSING_NAME", None, None, 1, None, at, None, "{}", True)
    )

    async def keep():
        await kept.add([letter])
        [read] = await kept.in_order(LetterFilter(project_id), 1)
        assert await kept.edit(read.letter_id, project_id, '{"name":"n"}', "n", None)
        return read

    return kept, run(keep())


def test_what_was_edited_meanwhile_is_not_removed_with_what_was_replayed(edited, run):
    """The replay was of the payload before: the new one still waits for its own."""
    kept, read = edited

    async def taken():
        async with kept.taken(read) as connection:
            return connection

    assert not run(kept.remove(read.letter_id, revision=read.revision))
    assert run(taken()) is None
    [letter] = run(kept.newest(LetterFilter(read.project_id), 1, with_payload=True))
    assert (letter.payload, letter.revision) == ('{"name":"n"}', 1)
    assert run(kept.remove(read.letter_id, revision=1))


def test_a_failure_of_what_was_there_before_is_not_noted_on_what_was_edited(edited, run):
    """Its number of attempts is its own."""
    kept, read = edited
    run(kept.failed(read, "validate", "INVALID_TYPE", None))

    [letter] = run(kept.newest(LetterFilter(read.project_id), 1))
    assert (letter.reason, letter.attempts) == ("MISSING_NAME", 0)
