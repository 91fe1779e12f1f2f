"""How many events a project may store in a calendar month (UTC).

Counted is what the store has confirmed as new, wherever it came from, and written down every
`FLUSH_S`. A process knows at once what it has stored itself, and what others have stored within
another `FLUSH_S`: so a quota is exceeded by what arrives in about a second, and by the batches
that were on their way. A process that is killed forgets what it has stored since the last time.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from typing import Final

from analytics_collector import metrics
from analytics_collector.errors import Refusal, StoreUnavailable
from analytics_collector.interfaces import (
    EventStore,
    ProjectMonth,
    UsageBoard,
    UsageLedger,
    UsageUnknown,
)
from analytics_collector.model import ApiKey, EventRow

logger = logging.getLogger(__name__)

FLUSH_S: Final = 0.5
# A project of which nothing is known yet may wait that long; then it may go on.
PATIENCE_S: Final = 0.05
# Where nothing could be learnt nobody waits again so soon.
_LOOK_AGAIN_S: Final = 1.0
# Projects that nobody has asked for in so many rounds are not looked after any more.
_FORGET_AFTER: Final = 120


def this_month() -> date:
    """Return the first day of the month, in UTC."""
    return datetime.now(UTC).date().replace(day=1)


class MonthlyQuota:
    """Knows what projects have stored this month, and refuses those that have had their share."""

    def __init__(
        self,
        ledger: UsageLedger,
        board: UsageBoard,
        default: int | None = None,
        month: Callable[[], date] = this_month,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """*default* holds where a project has no quota of its own; None is none."""
        self._ledger = ledger
        self._board = board
        self._default = default
        self._month = month
        self._clock = clock
        self._pending: Counter[ProjectMonth] = Counter()
        self._written: dict[ProjectMonth, int] = {}
        # Projects that have a quota, and for how many rounds nobody has asked for each.
        self._watched: dict[int, int] = {}
        # When to look again for projects of which nothing could be learnt.
        self._look_again_at: dict[int, float] = {}
        self._hurry = asyncio.Event()
        self._stopping = False
        self._round: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to write down what is counted; needs a running event loop."""
        self._task = asyncio.create_task(self._run(), name="monthly quota")

    async def stop(self) -> None:
        """Write down what was counted, if that can be."""
        self._stopping = True
        self._hurry.set()
        if self._task is not None:
            await self._task  # not cancelled: nobody would know whether its counts were written
        await self._flush()

    def count(self, project_id: int, new_events: int) -> None:
        """Count events that the project has stored."""
        self._pending[project_id, self._month()] += new_events

    async def check(self, key: ApiKey) -> None:
        """Raise `Refusal` (QUOTA_EXCEEDED) if the project of *key* may store no more this month."""
        quota = key.settings.limits.monthly_events
        if quota is None:
            quota = self._default
        if quota is None:
            return
        this = (key.project_id, self._month())
        if this not in self._written:
            await self._first_look(this)
        self._watched[key.project_id] = 0
        if self._written.get(this, 0) + self._pending[this] >= quota:
            metrics.RATE_LIMITED.labels("quota").inc()
            raise Refusal(
                "QUOTA_EXCEEDED",
                f"The project has stored the {quota} events that it may in {this[1]:%Y-%m} (UTC); "
                "it can store more from the first of the next month, or with a higher quota.",
            )

    async def _first_look(self, this: ProjectMonth) -> None:
        project_id = this[0]
        if self._clock() < self._look_again_at.get(project_id, 0.0):
            return
        self._watched[project_id] = 0
        if self._round is None:
            self._round = asyncio.get_running_loop().create_future()
        self._hurry.set()
        await asyncio.wait([self._round], timeout=PATIENCE_S)
        if this in self._written:
            self._look_again_at.pop(project_id, None)
        else:
            self._look_again_at[project_id] = self._clock() + _LOOK_AGAIN_S

    async def _run(self) -> None:
        while not self._stopping:
            try:
                async with asyncio.timeout(FLUSH_S):
                    await self._hurry.wait()
            except TimeoutError:
                pass
            self._hurry.clear()
            waiting, self._round = self._round, None
            try:
                await self._flush()
                await self._learn()
            except Exception:
                # The guard round a job: it must go on counting.
                logger.exception("Counting for the quota failed unexpectedly")
                await asyncio.sleep(FLUSH_S)
            finally:
                if waiting is not None and not waiting.done():
                    waiting.set_result(None)

    async def _flush(self) -> None:
        """Write down what was counted. What can't be waits for the next time."""
        counted = {this: count for this, count in self._pending.items() if count}
        if not counted:
            return
        try:
            totals = await self._ledger.add(counted)
        except StoreUnavailable as exc:
            logger.warning("Usage not written", extra={"reason": str(exc)})
            return
        for this, count in counted.items():
            self._pending[this] -= count
            if not self._pending[this]:
                del self._pending[this]
        for this, total in totals.items():
            if this[0] in self._watched:
                self._note(this, total)

    async def _learn(self) -> None:
        """Tell others what is known of the projects with a quota, and hear what they know."""
        month = self._month()
        self._written = {this: total for this, total in self._written.items() if this[1] == month}
        for project_id, rounds in list(self._watched.items()):
            self._watched[project_id] = rounds + 1
            if rounds > _FORGET_AFTER:
                del self._watched[project_id]
                self._look_again_at.pop(project_id, None)
        if not self._watched:
            self._written.clear()
            return
        known = {project: self._written.get((project, month), -1) for project in self._watched}
        try:
            heard = await self._board.exchange(month, known)
        except UsageUnknown:
            heard = {}
        unheard = [project for project in known if project not in heard]
        if unheard:
            heard |= await self._read(unheard, month)
        for project_id, total in heard.items():
            self._note((project_id, month), total)

    async def _read(self, projects: list[int], month: date) -> dict[int, int]:
        try:
            found = await self._ledger.read(projects, month)
        except StoreUnavailable as exc:
            logger.warning("Usage not read", extra={"reason": str(exc)})
            return {}
        return {project_id: found.get(project_id, 0) for project_id in projects}

    def _note(self, this: ProjectMonth, total: int) -> None:
        self._written[this] = max(total, self._written.get(this, 0))


class CountedStore:
    """An event store that tells the quota what is new. Implements `interfaces.EventStore`."""

    def __init__(self, store: EventStore, quota: MonthlyQuota) -> None:
        self._store = store
        self._quota = quota

    async def append(self, rows: Sequence[EventRow]) -> list[int]:
        """Commit *rows*, and count those that were not there before."""
        duplicates = await self._store.append(rows)
        counts = Counter([row.project_id for row in rows])
        counts.subtract(rows[position].project_id for position in duplicates)
        for project_id, count in counts.items():
            if count:
                self._quota.count(project_id, count)
        return duplicates
