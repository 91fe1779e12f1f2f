"""What the stages need from the outside, as small protocols; `assemble` chooses who serves them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Final, NamedTuple, Protocol

from analytics_collector.model import ApiKey, DeadLetter, EventRow, KeptLetter, LetterFilter
from analytics_collector.project_settings import ProjectSettings
from analytics_collector.spans import Spans


class RowsRefused(Exception):
    """The store can't hold at least one of the rows, whatever the time."""


class EventStore(Protocol):
    """Keeps events for good."""

    async def append(self, rows: Sequence[EventRow]) -> list[int]:
        """Commit *rows* in one transaction; return the positions of those that were there before.

        No two rows may have the same project and message id. Raises `RowsRefused` if a row can't
        be stored at all, and `StoreUnavailable` if the store did not confirm.
        """
        ...


class SpoolFull(Exception):
    """The spool has no room for these rows until some were brought home."""


SPOOL_IS_FULL: Final = 0.95


class SpoolState(NamedTuple):
    """What waits in a spool; `oldest_at` in seconds since 1970, None if nothing does."""

    events: int
    bytes: int
    max_bytes: int
    oldest_at: float | None
    refused: int
    """Events that the store will not have, kept apart."""

    @property
    def is_full(self) -> bool:
        """Whether there is hardly any room left."""
        return self.bytes >= SPOOL_IS_FULL * self.max_bytes


class SpooledRows(NamedTuple):
    """The rows that wait longest; `until` names their end to `Spool.remove`."""

    until: str
    rows: list[EventRow]
    size_bytes: int


class Spool(Protocol):
    """Keeps acknowledged rows, in order, until the store has them."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits; cheap, since it is asked for every group that is stored."""
        ...

    async def append(self, rows: Sequence[EventRow]) -> None:
        """Return when *rows* are safe. Raises `SpoolFull`, or `StoreUnavailable` if it fails."""
        ...

    async def oldest(self, max_events: int, max_bytes: int) -> SpooledRows | None:
        """Return the rows that wait longest, about so many; None if there are none.

        Raises `StoreUnavailable`.
        """
        ...

    async def remove(self, until: str, refused: Sequence[EventRow]) -> None:
        """Remove all rows up to *until*, and keep *refused* apart for the operator.

        Harmless if they were removed before. Raises `StoreUnavailable`.
        """
        ...

    async def state(self) -> SpoolState:
        """Return what waits, and since when. Raises `StoreUnavailable`."""
        ...

    async def probe(self) -> None:
        """See that it takes a write now. Raises `StoreUnavailable`."""
        ...

    async def lead(self) -> bool:
        """Return whether this process is the one of those that share it which drains.

        Two that do lose nothing, they only work twice. Raises `StoreUnavailable`.
        """
        ...

    async def follow(self) -> None:
        """Let another process drain."""
        ...

    async def close(self) -> None:
        """Let go of it; what it holds stays."""
        ...


class Overflow(Protocol):
    """Where the writer puts a group that the store does not take."""

    @property
    def is_empty(self) -> bool:
        """Whether a group may go to the store, since none waits that came before it."""
        ...

    async def append(self, rows: Sequence[EventRow]) -> None:
        """Return when *rows* are safe. Raises `StoreUnavailable`."""
        ...


class KeyMemory(Protocol):
    """Remembers over a restart which keys were valid, and when that was last known."""

    async def keep_keys(
        self, keys: Sequence[tuple[bytes, bytes, float]], forget_before: float
    ) -> None:
        """Keep *keys* (digest, document, when); forget those from before *forget_before*.

        Raises `StoreUnavailable`.
        """
        ...

    async def forget_key(self, digest: bytes) -> None:
        """Forget a key. Raises `StoreUnavailable`."""
        ...

    async def kept_keys(self) -> list[tuple[bytes, bytes, float]]:
        """Return what was kept. Raises `StoreUnavailable`."""
        ...


class KeyStore(Protocol):
    """Knows the API keys by their digests."""

    async def find_key(self, digests: Sequence[bytes]) -> ApiKey | None:
        """Return the valid key with one of *digests*: neither revoked nor expired; or None.

        Raises `StoreUnavailable`.
        """
        ...

    async def keep_digest(self, key_id: int, digest: bytes, pepper: str) -> None:
        """Store the key under *digest* from now on, which was made with *pepper* (its public id).

        Raises `StoreUnavailable`.
        """
        ...


ProjectMonth = tuple[int, date]
"""A project's id, and the first day of a month in UTC."""


class UsageUnknown(Exception):
    """What other processes know can't be asked now."""


class UsageLedger(Protocol):
    """Keeps how many events projects have stored in a month."""

    async def add(self, counts: Mapping[ProjectMonth, int]) -> dict[ProjectMonth, int]:
        """Add *counts*; return what each project has stored in its month now.

        Raises `StoreUnavailable`.
        """
        ...

    async def read(self, projects: Sequence[int], month: date) -> dict[int, int]:
        """Return what each of *projects* has stored in *month*, unless that is nothing.

        Raises `StoreUnavailable`.
        """
        ...


class UsageBoard(Protocol):
    """Where processes tell each other quickly what they know of the ledger."""

    async def exchange(self, month: date, known: Mapping[int, int]) -> dict[int, int]:
        """Tell what is *known* of projects, -1 for nothing; return what anybody knows.

        Raises `UsageUnknown`, and soon.
        """
        ...


class TokensUnavailable(Exception):
    """The shared token buckets can't be asked now."""


class LeaseRequest(NamedTuple):
    """One process asks for tokens of the bucket *name*, which fills up to *limit* in a minute.

    It gets up to *wanted*, or none if there are fewer than *least*. It brings *back* what it did
    not use, and *owed* is taken off for what it spent without asking.
    """

    name: str
    limit: int
    least: int
    wanted: int
    back: float
    owed: float


class Lease(NamedTuple):
    """What was granted, and what is left in the bucket after it."""

    granted: float
    left: float


class TokenStore(Protocol):
    """Keeps the token buckets that processes share."""

    async def lease(self, requests: Sequence[LeaseRequest]) -> list[Lease]:
        """Answer *requests* in their order; without any, tell that the store is there.

        Raises `TokensUnavailable`, and soon: requests may be waiting.
        """
        ...


class SessionsUnavailable(Exception):
    """The shared sessions can't be asked now."""


class StreamTimes(NamedTuple):
    """A stream of events, when some of them happened (ms since 1970), and sessions it has had.

    *stream* is `a` and an `anonymousId`, or `u` and a `userId`.
    """

    stream: str
    times: list[int]
    known: Spans


class SessionStore(Protocol):
    """Keeps the sessions of streams that processes share."""

    async def place(
        self, project_id: int, wanted: Sequence[StreamTimes], must_know: bool
    ) -> list[Spans | None]:
        """Return the sessions of each stream, grown to its times and to what is known of it.

        None for a stream that the store may have forgotten, if it *must_know*; nothing is then
        begun. Raises `SessionsUnavailable`.
        """
        ...


class SessionHistory(Protocol):
    """Knows the sessions that stored events belong to."""

    async def sessions_near(self, project_id: int, wanted: Sequence[StreamTimes]) -> list[Spans]:
        """Return those of each stream that events at its times could belong to.

        Raises `StoreUnavailable`.
        """
        ...


class DeadLetterStore(Protocol):
    """Keeps events that were given up on."""

    async def add(self, letters: Sequence[DeadLetter]) -> None:
        """Keep *letters*, in one transaction. Raises `StoreUnavailable`."""
        ...

    async def bound(self, project_ids: Sequence[int], max_per_project: int) -> int:
        """Remove what each of the projects has too many of; return how many that were.

        Raises `StoreUnavailable`.
        """
        ...


class StoredSchema(NamedTuple):
    """The schema of one event that holds now; `mode` None: as the project's settings say."""

    name: str
    version: int
    mode: str | None
    document: str


class StoredPlan(NamedTuple):
    """The schemas of a project, and the number of changes that led to them."""

    revision: int
    schemas: list[StoredSchema]


class SchemaFinding(NamedTuple):
    """How often events did not fit a version of a schema; version 0: that no schema is known for.

    `faults` counts them by place in the schema and keyword.
    """

    project_id: int
    name: str
    version: int
    events: int
    rejected: int
    first_seen_at: datetime
    last_seen_at: datetime
    faults: dict[tuple[str, str], int]


class SchemaStore(Protocol):
    """Keeps the event schemas of projects."""

    async def load_plan(self, project_id: int) -> StoredPlan:
        """Return the schemas of the project. Raises `StoreUnavailable`."""
        ...

    async def plan_revisions(self, project_ids: Sequence[int]) -> dict[int, int]:
        """Return the revisions of those that ever had a schema. Raises `StoreUnavailable`."""
        ...


class DeadLetterBox(DeadLetterStore, Protocol):
    """Also lets them be looked at, changed, and sent through again. All of it may raise
    `StoreUnavailable`; *within* is the one project that a letter may belong to, or None.
    """

    async def newest(
        self, wanted: LetterFilter, limit: int, *, with_payload: bool = False
    ) -> list[KeptLetter]:
        """Return up to *limit* letters, the newest first."""
        ...

    async def in_order(self, wanted: LetterFilter, limit: int) -> Sequence[KeptLetter]:
        """Return up to *limit* letters with their payloads, the oldest first."""
        ...

    async def edit(
        self,
        letter_id: int,
        within: int | None,
        payload: str,
        name: str | None,
        message_id: str | None,
    ) -> bool:
        """Give a refused event another payload; return False if there is none of that id."""
        ...

    async def remove(
        self, letter_id: int, within: int | None = None, revision: int | None = None
    ) -> bool:
        """Remove a letter; return False if there is none, or none at that *revision*."""
        ...

    async def failed(self, letter: KeptLetter, stage: str, reason: str, field: str | None) -> None:
        """Note that *letter* failed again, unless it was edited meanwhile."""
        ...

    async def is_stored(self, project_id: int, message_id: str) -> bool:
        """Return whether there is an event of that id."""
        ...

    async def settings_of(self, project_id: int) -> ProjectSettings:
        """Return the settings of a project."""
        ...
