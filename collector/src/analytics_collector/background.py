"""Jobs that a server does beside its requests, round after round."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol, TypeVar

from analytics_collector.errors import StoreUnavailable

logger = logging.getLogger(__name__)

FLUSH_S: Final = 2.0
"""How long what was counted waits to be written."""

Item = TypeVar("Item")


class Rounds:
    """Carries out *work* every so many seconds; the last time after it was told to stop."""

    def __init__(self, name: str, work: Callable[[], Awaitable[Any]], every_s: float) -> None:
        """*name* says what the work is, in the log."""
        self._name = name
        self._work = work
        self._every_s = every_s
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; needs a running event loop."""
        self._task = asyncio.create_task(self._run(), name=self._name)

    async def stop(self) -> None:
        """Carry out the last round, if this was started."""
        self._stopping.set()
        if self._task is not None:
            await self._task

    async def pause(self, seconds: float) -> bool:
        """Wait, at most until this is told to stop; return whether it was."""
        try:
            async with asyncio.timeout(seconds):
                return await self._stopping.wait()
        except TimeoutError:
            return False

    async def _run(self) -> None:
        is_last = False
        while not is_last:
            is_last = await self.pause(self._every_s)
            try:
                await self._work()
            except Exception:
                # A fault of ours: it must neither pass unseen nor be the end of the rounds.
                logger.exception("Job failed unexpectedly", extra={"job": self._name})


class Counts(Protocol[Item]):
    """What was counted in memory and is to be written."""

    def take(self) -> Sequence[Item]:
        """Return what was counted since the last time."""
        ...

    def put_back(self, items: Sequence[Item], /) -> None:
        """Count *items* again: they could not be written."""
        ...


class CountWriter:
    """Writes what was counted, every so many seconds and at the end.

    What a store that is away does not take waits; what fails by a fault of ours is lost: these
    are statistics, and no event goes by them.
    """

    def __init__(
        self,
        name: str,
        counts: Counts[Item],
        write: Callable[[Sequence[Item]], Awaitable[None]],
        every_s: float = FLUSH_S,
    ) -> None:
        """*name* says what is counted, in the log."""
        self._name = name
        self._counts: Counts[Any] = counts
        self._write: Callable[[Any], Awaitable[None]] = write
        self._turn = asyncio.Lock()
        self._rounds = Rounds(name, self.flush, every_s)
        self.start = self._rounds.start
        self.stop = self._rounds.stop

    async def flush(self) -> None:
        """Write what was counted, also what another call has taken and not written yet."""
        async with self._turn:
            await self._flush()

    async def _flush(self) -> None:
        items = self._counts.take()
        if not items:
            return
        try:
            await self._write(items)
        except StoreUnavailable as exc:
            self._counts.put_back(items)
            logger.warning("Counts not written", extra={"job": self._name, "reason": str(exc)})
