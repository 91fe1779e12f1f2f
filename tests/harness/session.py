"""One connection to Postgres that stays open: for locks, and to be in the way."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Self

import asyncpg

_TIMEOUT_S = 30.0


class Session:
    """Runs statements one after the other on one connection. Raises what asyncpg raises."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._runner = asyncio.Runner()

    def __enter__(self) -> Self:
        self._runner.__enter__()
        try:
            self._connection = self._runner.run(
                asyncpg.connect(self._url, timeout=_TIMEOUT_S, command_timeout=_TIMEOUT_S)
            )
        except BaseException:
            self._runner.close()
            raise
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._runner.run(self._close())
        self._runner.close()

    def fetch(self, statement: str) -> list[Any]:
        """Return the rows of a statement."""
        rows: list[Any] = self._runner.run(self._connection.fetch(statement))
        return rows

    async def _close(self) -> None:
        self._connection.terminate()
        await asyncio.sleep(0)  # the loop closes the socket at its next turn
