"""Group commit: events of many requests in one transaction.

While Postgres commits one group the next one gathers. Each request waits until the group that
holds its events is safe, and learns which of them had been there before.

With somewhere to put them (`interfaces.Overflow`), groups that the store does not take go there,
and so does every later one as long as something waits there: nothing overtakes what came before.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from analytics_collector import metrics
from analytics_collector.errors import StoreUnavailable
from analytics_collector.ingest.turns import Turns
from analytics_collector.interfaces import EventStore, Overflow, RowsRefused
from analytics_collector.model import COMMITTED, SPOOLED, Durability, EventRow

logger = logging.getLogger(__name__)

# A group is one transaction, one statement and one entry of the stream: large enough to share
# their cost, small enough that nobody waits long for the others.
MAX_GROUP_EVENTS = 1000
MAX_GROUP_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of the rows of one request: positions of those that are no new events.

    Of rows that are spooled it is not known which of them the store had before.
    """

    duplicates: list[int]
    refused: list[int]
    durability: Durability = COMMITTED


@dataclass(slots=True)
class _Waiting:
    rows: Sequence[EventRow]
    size_bytes: int
    done: asyncio.Future[Stored]
    duplicates: list[int] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)


_Owner = tuple[_Waiting, int]
"""Who sent a row: a request, and the row's position in it."""


class GroupWriter:
    """Writes the rows of concurrent requests to a store.

    Those of one project in the order in which they came; projects take turns, and those of which
    a lot waits are written beside the others, who so do not wait for a flood of one to be stored.
    """

    def __init__(self, store: EventStore, overflow: Overflow | None = None) -> None:
        self._store = store
        self._overflow = overflow
        self._waiting: Turns[_Waiting] = Turns()
        # One for those of which little waits, one for those of which a lot does.
        self._wakes = (asyncio.Event(), asyncio.Event())
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False

    def start(self) -> None:
        """Begin to write; needs a running event loop."""
        self._tasks = [
            asyncio.create_task(self._run(large), name="group writer") for large in (False, True)
        ]

    async def stop(self) -> None:
        """Write what was taken, then stop."""
        self._stopping = True
        for wake in self._wakes:
            wake.set()
        await asyncio.gather(*self._tasks)

    async def write(self, rows: Sequence[EventRow], size_bytes: int) -> Stored:
        """Return when *rows* are safe; *size_bytes* is about what they take on the wire.

        Raises `StoreUnavailable` if nobody confirmed that; the rows may then be stored or not,
        and writing them again is harmless.
        """
        if self._stopping:
            raise StoreUnavailable("stopping")
        waiting = _Waiting(rows, size_bytes, asyncio.get_running_loop().create_future())
        is_large = self._waiting.append(rows[0].project_id, waiting)
        self._wakes[is_large].set()
        return await waiting.done

    async def _run(self, large: bool) -> None:
        """Write one group after the other, of projects of which a lot waits or of the others."""
        wake, other_wake = self._wakes[large], self._wakes[not large]
        while self._waiting or not self._stopping:
            group = self._waiting.next_group(MAX_GROUP_EVENTS, MAX_GROUP_BYTES, large=large)
            if self._waiting:
                other_wake.set()  # a project that this one has done with may be its next
            if group:
                await self._commit(group)
            else:
                wake.clear()
                await wake.wait()
        other_wake.set()  # there is nothing left for it either

    async def _commit(self, group: list[_Waiting]) -> None:
        owners, rows, repeats = _without_repeats(group)
        try:
            durability = await self._keep(owners, rows)
        except StoreUnavailable as exc:
            metrics.COMMIT_FAILURES.inc()
            logger.warning("Commit failed", extra={"reason": str(exc), "events": len(rows)})
            for waiting in group:
                _fail(waiting, exc)
        except Exception as exc:
            # A fault of ours: the requests must not wait for ever, nor the writer end.
            logger.exception("Commit failed unexpectedly")
            for waiting in group:
                _fail(waiting, StoreUnavailable(type(exc).__name__))
        else:
            for (waiting, position), (first, first_position) in repeats:
                refused = first_position in first.refused
                (waiting.refused if refused else waiting.duplicates).append(position)
            for waiting in group:
                _resolve(waiting, durability)

    async def _keep(self, owners: list[_Owner], rows: list[EventRow]) -> Durability:
        """Commit *rows*, or put them behind what waits for the store already."""
        if self._overflow is None:
            await self._append(owners, rows)
            return COMMITTED
        if self._overflow.is_empty:
            try:
                await self._append(owners, rows)
            except StoreUnavailable as exc:
                metrics.COMMIT_FAILURES.inc()
                logger.warning("Commit failed", extra={"reason": str(exc), "events": len(rows)})
            else:
                return COMMITTED
        # Some may have been refused, or stored, before the store went away: the refused stay
        # refused, and the others are known by their message ids when they come home.
        kept = [
            row
            for row, (waiting, position) in zip(rows, owners, strict=True)
            if position not in waiting.refused
        ]
        if kept:
            await self._overflow.append(kept)
        return SPOOLED

    async def _append(self, owners: list[_Owner], rows: list[EventRow]) -> None:
        """Commit *rows*; if the store refuses some, find them by halves and commit the others."""
        started = time.perf_counter()
        try:
            duplicates = await self._store.append(rows)
        except RowsRefused as exc:
            if len(rows) == 1:
                waiting, position = owners[0]
                waiting.refused.append(position)
                logger.error(
                    "Row refused by the store",
                    extra={"message_id": rows[0].message_id, "reason": str(exc)},
                )
                return
            half = len(rows) // 2
            await self._append(owners[:half], rows[:half])
            await self._append(owners[half:], rows[half:])
            return
        metrics.COMMITS.inc()
        metrics.COMMIT_SECONDS.observe(time.perf_counter() - started)
        metrics.COMMIT_EVENTS.observe(len(rows))
        for index in duplicates:
            waiting, position = owners[index]
            waiting.duplicates.append(position)


def _without_repeats(
    group: list[_Waiting],
) -> tuple[list[_Owner], list[EventRow], list[tuple[_Owner, _Owner]]]:
    """Return the rows of *group* with their owners, each message id once, and what repeats them.

    A repeat stands beside the owner of the row that it repeats, the first: whether it is a
    duplicate is known when that row is stored.
    """
    owners: dict[tuple[int, str], _Owner] = {}
    rows: list[EventRow] = []
    repeats: list[tuple[_Owner, _Owner]] = []
    for waiting in group:
        for position, row in enumerate(waiting.rows):
            identity = (row.project_id, row.message_id)
            if identity in owners:
                repeats.append(((waiting, position), owners[identity]))
                continue
            owners[identity] = (waiting, position)
            rows.append(row)
    return list(owners.values()), rows, repeats


def _resolve(waiting: _Waiting, durability: Durability) -> None:
    if not waiting.done.done():  # else the client is gone
        waiting.done.set_result(Stored(waiting.duplicates, waiting.refused, durability))


def _fail(waiting: _Waiting, error: StoreUnavailable) -> None:
    if not waiting.done.done():
        waiting.done.set_exception(error)
