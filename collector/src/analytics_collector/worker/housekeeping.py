"""What has to be removed now and then: dead letters, and old rows of the log of commits.

A commit may go when nobody asks for it any more. The publisher looks whether the database knows
the one that the stream ends with, a restored database is known by the one at a consumer's cursor,
and whoever lost something takes it from there: so the commits at all these places stay, and what
is behind them. A consumer that is added later begins with what is left, and has to take what was
before from the events, which stay.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import Final

from redis.exceptions import ResponseError

from analytics_collector import metrics
from analytics_collector.adapters.postgres.dead_letters import bound_letters, expire_letters
from analytics_collector.adapters.postgres.log import CommitLog
from analytics_collector.adapters.redis.stream import EventStream
from analytics_collector.model import Cursor

logger = logging.getLogger(__name__)

NAME: Final = "housekeeping"
EVERY_S: Final = 60.0
# So many in one transaction, so that none is long.
_AT_ONCE: Final = 5_000


class Housekeeping:
    """The one that cleans up; see `run.active_alone`."""

    def __init__(
        self,
        log: CommitLog,
        stream: EventStream,
        *,
        max_letters: int,
        letter_days: int,
        commit_days: int,
        every_s: float = EVERY_S,
    ) -> None:
        """*commit_days* of 0 keeps the log of commits for ever."""
        self._log = log
        self._stream = stream
        self._max_letters = max_letters
        self._letter_days = timedelta(days=letter_days)
        self._commit_days = timedelta(days=commit_days)
        self._every_s = every_s

    async def run(self) -> None:
        """Clean up for ever; raises what Postgres or Redis raise."""
        while True:
            with metrics.JOB_SECONDS.labels(NAME).time():
                await self.clean()
            await asyncio.sleep(self._every_s)

    async def clean(self) -> None:
        """Remove what is due now."""
        expired = 0
        while removed := await expire_letters(self._log.connection, self._letter_days, _AT_ONCE):
            expired += removed
        surplus = await bound_letters(self._log.connection, None, self._max_letters)
        metrics.DEAD_LETTERS_REMOVED.labels("expired").inc(expired)
        metrics.DEAD_LETTERS_REMOVED.labels("surplus").inc(surplus)
        if expired or surplus:
            logger.info("Dead letters removed", extra={"expired": expired, "surplus": surplus})
        if self._commit_days:
            await self._clean_log()

    async def _clean_log(self) -> None:
        until = await self._needed_from()
        removed = _AT_ONCE
        while removed == _AT_ONCE:
            removed = await self._log.remove_before(until, self._commit_days, _AT_ONCE)
            metrics.COMMITS_REMOVED.inc(removed)

    async def _needed_from(self) -> Cursor:
        """Return the first commit that somebody may ask for."""
        places = [await self._log.slowest_cursor()]
        tail = await self._stream.tail()
        if tail is not None:
            places.append(tail)
            try:
                places += await self._stream.places_of_groups()
            except ResponseError:
                return Cursor(0, 0)  # the stream is gone since: next time
        return min(places)
