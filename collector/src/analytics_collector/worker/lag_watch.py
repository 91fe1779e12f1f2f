"""Measure how far the publisher and the consumers are behind, for /metrics of the worker."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Final

from analytics_collector import metrics
from analytics_collector.adapters.postgres.lag import read_lags
from analytics_collector.adapters.postgres.log import CommitLog
from analytics_collector.adapters.redis.client import REDIS_FAILURES
from analytics_collector.adapters.redis.stream import EventStream
from analytics_collector.model import Cursor

NAME: Final = "lag watch"
EVERY_S: Final = 5.0


class LagWatch:
    """Looks now and then. While Redis is away the publisher stays where it was last seen."""

    def __init__(self, log: CommitLog, stream: EventStream, every_s: float = EVERY_S) -> None:
        self._log = log
        self._stream = stream
        self._every_s = every_s
        self._published: Cursor | None = None

    async def run(self) -> None:
        """Measure for ever; raises what Postgres raises."""
        while True:
            await self.measure()
            await asyncio.sleep(self._every_s)

    async def measure(self) -> None:
        """Measure now."""
        with suppress(*REDIS_FAILURES):  # the lags will tell
            self._published = await self._stream.tail()
            metrics.STREAM_ENTRIES.set(await self._stream.length())
        for lag in await read_lags(self._log.connection, self._published):
            metrics.LAG_SECONDS.labels(lag.name).set(lag.seconds)
            metrics.LAG_COMMITS.labels(lag.name).set(lag.commits)
        metrics.LAG_MEASURED.set(time.time())
