"""The spool on disk, for an event loop: SQLite does its work in one thread of its own."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar
from urllib.parse import parse_qsl, urlsplit

from analytics_collector import metrics
from analytics_collector.adapters.spool.file import Record, SpoolFile, read_state
from analytics_collector.adapters.spool.rows import decode_rows, encode_rows
from analytics_collector.errors import ConfigurationError, StoreUnavailable
from analytics_collector.interfaces import SpooledRows, SpoolFull, SpoolState
from analytics_collector.model import EventRow

logger = logging.getLogger(__name__)

T = TypeVar("T")

_FAILURES = (sqlite3.Error, OSError)
# What `decode_rows` trips over in a record of a newer version, or one that is damaged.
_UNREADABLE = (ValueError, TypeError, LookupError)


class SqliteSpool:
    """Implements `interfaces.Spool` and `interfaces.KeyMemory`."""

    def __init__(self, folder: Path, name: str, max_bytes: int) -> None:
        """*name* stands for the database that the events are for."""
        self._file = SpoolFile(folder, name, max_bytes)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spool")

    async def open(self) -> None:
        """Open it. Raises `ConfigurationError` if there is no place for it."""
        try:
            await self._do(self._file.open)
        except StoreUnavailable as exc:
            self._thread.shutdown()
            raise ConfigurationError(
                f"the spool {self._file.path} can't be used ({exc.__cause__}): "
                "set ANALYTICS_SPOOL to a directory that this user can write to"
            ) from exc
        for path, state in other_spools(self._file.path):
            logger.warning(
                "Events of another database wait here",
                extra={"path": str(path), "events": state.events, "ours": str(self._file.path)},
            )

    async def close(self) -> None:
        """Let go of the file; what it holds stays."""
        self._file.follow()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._file.close)
        self._thread.shutdown()

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits, of this process or of any other of the host."""
        return self._file.is_empty

    async def append(self, rows: Sequence[EventRow]) -> None:
        """Put *rows* on the disk. Raises `SpoolFull` or `StoreUnavailable`."""
        await self._do(lambda: self._file.append(len(rows), encode_rows(rows)))

    async def oldest(self, max_events: int, max_bytes: int) -> SpooledRows | None:
        """Return the rows that wait longest, or None. Raises `StoreUnavailable`.

        What can't be read is kept apart when its turn comes.
        """

        def read() -> SpooledRows | None:
            while records := self._file.oldest(max_events, max_bytes):
                if found := self._readable(records):
                    return found
            return None

        return await self._do(read)

    async def remove(self, until: str, refused: Sequence[EventRow]) -> None:
        """Remove all up to *until*, and keep *refused* apart. Raises `StoreUnavailable`."""
        payload = encode_rows(refused)
        await self._do(lambda: self._file.remove(int(until), len(refused), payload))

    async def state(self) -> SpoolState:
        """Return what waits, and since when. Raises `StoreUnavailable`."""
        return await self._do(self._file.state)

    async def probe(self) -> None:
        """See that it takes a write now. Raises `StoreUnavailable`."""
        await self._do(self._file.probe)

    async def lead(self) -> bool:
        """Return whether this process is the one that drains. Raises `StoreUnavailable`."""
        try:
            return self._file.lead()
        except OSError as exc:
            raise StoreUnavailable(f"spool: {exc}") from exc

    async def follow(self) -> None:
        """Let another process drain."""
        self._file.follow()

    async def keep_keys(
        self, keys: Sequence[tuple[bytes, bytes, float]], forget_before: float
    ) -> None:
        """Keep *keys* (digest, document, when). Raises `StoreUnavailable`."""
        await self._do(lambda: self._file.keep_keys(list(keys), forget_before))

    async def forget_key(self, digest: bytes) -> None:
        """Forget a key. Raises `StoreUnavailable`."""
        await self._do(lambda: self._file.forget_key(digest))

    async def kept_keys(self) -> list[tuple[bytes, bytes, float]]:
        """Return what `keep_keys` kept. Raises `StoreUnavailable`."""
        return await self._do(self._file.kept_keys)

    def _readable(self, records: Sequence[Record]) -> SpooledRows | None:
        """Return the first rows of *records*, up to what can't be read; keep apart such before."""
        until, size_bytes = 0, 0
        rows: list[EventRow] = []
        for record_id, events, payload in records:
            try:
                rows += decode_rows(payload)
            except _UNREADABLE as exc:
                if until:
                    break
                self._file.remove(record_id, events, payload)
                metrics.SPOOL_DRAINED.labels("refused").inc(events)
                # Not the message, which may cite an event.
                reason = type(exc).__name__
                logger.error(
                    "Spooled events can't be read", extra={"events": events, "reason": reason}
                )
            else:
                until = record_id
                size_bytes += len(payload)
        return SpooledRows(str(until), rows, size_bytes) if until else None

    async def _do(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._guarded, work)

    def _guarded(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except SpoolFull:
            raise
        except _FAILURES as exc:
            metrics.SPOOL_FAILURES.inc()
            # A file that failed is opened anew: what SQLite and the kernel hold of it may differ
            # from what is on the disk.
            try:
                self._file.close()
            except _FAILURES:
                logger.warning("Spool could not be closed", extra={"path": str(self._file.path)})
            raise StoreUnavailable(f"spool: {exc}") from exc


def spool_name(database_url: str) -> str:
    """Return a name for the database at *database_url*, the same whoever connects to it."""
    url = urlsplit(database_url)
    host = [f"{name}={value}" for name, value in parse_qsl(url.query) if name in ("host", "port")]
    place = "\n".join([url.hostname or "", str(url.port or ""), url.path, *sorted(host)])
    return f"events-{hashlib.sha256(place.encode()).hexdigest()[:12]}"


def other_spools(own: Path) -> list[tuple[Path, SpoolState]]:
    """Return the spools beside *own* in which events wait: of other databases, or set aside."""
    found = []
    for path in sorted(own.parent.glob("*.sqlite")):
        if path == own:
            continue
        try:
            state = read_state(path)
        except sqlite3.Error as exc:
            logger.warning("No spool", extra={"path": str(path), "reason": str(exc)})
            continue
        if state.events:
            found.append((path, state))
    return found
