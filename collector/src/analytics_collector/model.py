"""The states that an event passes through, and what is known of its sender.

bytes → `RawBatch` (decoded, nothing checked) → `EventRow` (valid, as it will be stored).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, NamedTuple

from analytics_collector.project_settings import ProjectSettings

SCOPES = ("ingest", "read", "admin")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key that was looked up; the secret itself is not kept."""

    key_id: int
    project_id: int
    scopes: frozenset[str]
    expires_at: datetime | None
    allowed_origins: tuple[str, ...] | None = None
    """Web origins that browsers may send from with this key; None is any."""
    settings: ProjectSettings = field(default_factory=ProjectSettings)
    """Those of its project."""


@dataclass(frozen=True, slots=True)
class RawBatch:
    """A decoded body: `events` may hold anything that JSON can hold.

    `exact` is False when the body could hold what the fast parser changes silently, and the
    exact parser was used: its events can contain `decode.OUT_OF_RANGE`, NUL characters and lone
    surrogates.
    """

    events: list[Any]
    sent_at: Any
    exact: bool


class EventRow(NamedTuple):
    """One valid event, a member for each column in the order of `store_events` in `events.sql`."""

    project_id: int
    message_id: str
    timestamp: datetime
    received_at: datetime
    client_timestamp: datetime | None
    timestamp_clamped: bool
    type: str
    name: str
    user_id: str | None
    anonymous_id: str | None
    session_id: str | None
    group_id: str | None
    previous_id: str | None
    properties: str
    traits: str | None
    context: str
    extra: str | None
    enrichment: str | None = None
    """What the collector worked out, as JSON; never what the client said."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why one event of a batch was refused: a code of spec/errors.json `event`."""

    index: int
    message_id: str | None
    code: str
    field: str | None = None


@dataclass(frozen=True, slots=True)
class ValidBatch:
    """The events of a batch that can be stored, and the verdicts on the others.

    `indexes[i]` is the position in the batch of `rows[i]`, and `events[i]` what it was made of.
    """

    rows: list[EventRow]
    indexes: list[int]
    events: list[dict[str, Any]]
    rejected: list[Rejection]


@dataclass(frozen=True, slots=True)
class Accepted:
    """What became of a batch that was committed."""

    event_count: int
    duplicates: int
    rejected: list[Rejection]


class Cursor(NamedTuple):
    """A place in the log of commits, in the order in which it is followed."""

    xid: int
    commit_id: int

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Return the cursor that `str()` wrote."""
        xid, _, commit_id = text.partition("-")
        return cls(int(xid), int(commit_id))

    def __str__(self) -> str:
        """Return the cursor as the id of a stream's entry."""
        return f"{self.xid}-{self.commit_id}"


class Entry(NamedTuple):
    """One commit as the stream holds it: `events` is a JSON array, `previous` the one before."""

    cursor: Cursor
    previous: Cursor
    events: str


DailyCount = tuple[int, date, str, int]
"""Project id, day in UTC, event name, number of events."""
