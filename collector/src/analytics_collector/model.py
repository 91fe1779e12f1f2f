"""The states that an event passes through, and what is known of its sender.

bytes → `RawBatch` (decoded, nothing checked) → `EventRow` (valid, as it will be stored).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Final, Literal, NamedTuple

from analytics_collector.project_settings import ProjectSettings

SCOPES = ("ingest", "read", "admin")
# The installation's own: its admin keys may make other projects, and look after all of them.
DEFAULT_PROJECT = "default"


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
    of_installation: bool = False
    """Whether its project is `DEFAULT_PROJECT`."""
    pepper: str | None = None
    """The public id of the secret under which it is stored; None where that was never noted."""


class KeyUse(NamedTuple):
    """How much a key was used on one day in UTC, as far as it was not written yet."""

    key_id: int
    day: date
    requests: int
    events: int
    rejected: int
    last_used_at: datetime | None


class Sender(NamedTuple):
    """What the connection tells of a browser; of a server that sends for others, nothing."""

    ip: str | None = None
    user_agent: str | None = None
    remembered_id: str | None = None
    """The `anonymousId` in its cookie, "" if it has none; None where no cookie is wanted."""


NO_SENDER = Sender()


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


class Violation(NamedTuple):
    """One thing that an event schema has against an event."""

    path: str
    """The member that is wrong, or missing, as a path with dots."""
    message: str
    keyword: str
    """The word of JSON Schema that says so."""
    place: str
    """The path as the schema knows it, without names and numbers that only this event has."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why one event of a batch was refused: a code of spec/errors.json `event`."""

    index: int
    message_id: str | None
    code: str
    field: str | None = None
    violations: tuple[Violation, ...] = ()
    """With SCHEMA_VIOLATION: what its event schema has against it."""


@dataclass(frozen=True, slots=True)
class ValidBatch:
    """The events of a batch that can be stored, and the verdicts on the others.

    `indexes[i]` is the position in the batch of `rows[i]`, and `events[i]` what it was made of.
    """

    rows: list[EventRow]
    indexes: list[int]
    events: list[dict[str, Any]]
    rejected: list[Rejection]


Durability = Literal["committed", "spooled"]
COMMITTED: Final = "committed"
SPOOLED: Final = "spooled"
"""On our disk, and in the store as soon as that is back."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """What became of a batch that is safe."""

    event_count: int
    duplicates: int
    rejected: list[Rejection]
    durability: Durability = COMMITTED
    anonymous_id: str | None = None
    """Who the visitor is, where that is to be remembered in a cookie."""


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


class DeadLetter(NamedTuple):
    """An event that was given up on, a member for each column of `add_letters` in its SQL."""

    project_id: int
    stage: str
    """decode, validate, schema, store, or consumer:NAME."""
    reason: str
    field: str | None
    name: str | None
    key_id: int | None
    message_id: str | None
    received_at: datetime
    sent_at: str | None
    payload: str
    """JSON: the event, or, if it is not whole, a string with its beginning."""
    is_whole: bool


class LetterFilter(NamedTuple):
    """Which dead letters are meant; None is any."""

    project_id: int | None = None
    reason: str | None = None
    stage: str | None = None
    name: str | None = None
    received_from: datetime | None = None
    received_before: datetime | None = None
    behind: int | None = None
    """A letter's id: only those that come after it in the order of the question."""
    ids: tuple[int, ...] | None = None


class KeptLetter(NamedTuple):
    """A dead letter as it is stored; `payload` is None where it was not asked for."""

    letter_id: int
    project_id: int
    stage: str
    reason: str
    field: str | None
    name: str | None
    key_id: int | None
    message_id: str | None
    received_at: datetime
    sent_at: str | None
    is_whole: bool
    revision: int
    attempts: int
    noted_at: datetime
    last_tried_at: datetime | None
    payload: str | None
