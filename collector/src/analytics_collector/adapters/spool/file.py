"""One spool in one SQLite file, for any number of processes of a host; blocking calls.

Processes share the file, so that the order of what they acknowledge is one order. It is in WAL
mode with `synchronous = FULL`: when a transaction ends its pages are on the disk, and whatever
process is killed when, the next one that opens the file finds all that was committed and no more.

Beside it lies an empty file `….pending` while there are records: whether the spool is empty is
asked for every group that is stored, and costs one look at the directory. It is made and removed
only under SQLite's write lock.
"""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from analytics_collector.adapters.sqlfile import load_blocks
from analytics_collector.interfaces import SpoolFull, SpoolState

logger = logging.getLogger(__name__)

_SQL = load_blocks("analytics_collector.adapters.spool", "spool.sql")
_TABLES = ("create_records", "create_refused", "create_totals", "create_keys", "begin_totals")
_BUSY_TIMEOUT_S = 2.0

Record = tuple[int, int, bytes]
"""Id, number of events, payload."""


class SpoolFile:
    """An open spool. Every method may raise `sqlite3.Error` or OSError, and then changed nothing.

    All but `is_empty` and `lead` belong to one thread.
    """

    def __init__(self, folder: Path, name: str, max_bytes: int) -> None:
        self.path = folder / f"{name}.sqlite"
        self._max_bytes = max_bytes
        self._pending = os.fspath(folder / f"{name}.pending")
        self._opening = folder / f"{name}.opening"
        self._draining = folder / f"{name}.draining"
        self._lead_fd: int | None = None
        self._connection: sqlite3.Connection | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits, of this process or of any other of the host."""
        return not os.path.exists(self._pending)  # noqa: PTH110 - a Path costs six times as much

    def open(self) -> None:
        """Open the file, made if there is none; one that is broken is set aside first."""
        _private_folder(self.path.parent)
        with _locked(self._opening):
            try:
                self._connection = _connect(self.path)
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError as exc:
                _set_aside(self.path, exc)
                self._connection = _connect(self.path)
        with self._writing() as connection:
            # After a power cut the mark may be missing.
            self._mark(bool(connection.execute(_SQL["has_records"]).fetchone()[0]))

    def close(self) -> None:
        """Close the file; what it holds stays."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def append(self, events: int, payload: bytes) -> None:
        """Add a record; when this returns it is on the disk. Raises `SpoolFull`."""
        with self._writing() as connection:
            size_bytes = connection.execute(_SQL["totals"]).fetchone()[1]
            if size_bytes + len(payload) > self._max_bytes:
                raise SpoolFull(f"{size_bytes} of {self._max_bytes} bytes are taken")
            connection.execute(_SQL["add_record"], (time.time(), events, payload))
            connection.execute(_SQL["add_totals"], (events, len(payload), 0))
            self._mark(True)

    def oldest(self, max_events: int, max_bytes: int) -> list[Record]:
        """Return the oldest records, at least one if there is any, at most so much of them."""
        records: list[Record] = []
        events = size_bytes = last_id = 0
        connection = self._opened()
        while row := connection.execute(_SQL["oldest"], (last_id,)).fetchone():
            last_id = row[0]
            events += row[1]
            size_bytes += len(row[2])
            if records and (events > max_events or size_bytes > max_bytes):
                break
            records.append(row)
        return records

    def remove(self, last_id: int, refused_events: int = 0, refused: bytes = b"") -> int:
        """Remove all records up to *last_id*; return their bytes. Keep what was refused of them."""
        with self._writing() as connection:
            events, size_bytes = connection.execute(_SQL["sums_until"], (last_id,)).fetchone()
            connection.execute(_SQL["remove_until"], (last_id,))
            if refused_events:
                connection.execute(_SQL["add_refused"], (time.time(), refused_events, refused))
            kept_bytes = len(refused) if refused_events else 0
            connection.execute(
                _SQL["add_totals"], (-events, kept_bytes - size_bytes, refused_events)
            )
        # Only now, in a transaction that writes nothing and so can't fail behind it: records
        # without the mark would be overtaken, and nobody would bring them home.
        with self._writing() as connection:
            is_empty = not connection.execute(_SQL["has_records"]).fetchone()[0]
            if is_empty:
                self._mark(False)
        if is_empty:
            self._give_back()
        return int(size_bytes)

    def state(self) -> SpoolState:
        """Return what waits, and since when."""
        connection = self._opened()
        events, size_bytes, refused = connection.execute(_SQL["totals"]).fetchone()
        oldest = connection.execute(_SQL["oldest_at"]).fetchone()
        since = None if oldest is None else oldest[0]
        return SpoolState(events, size_bytes, self._max_bytes, since, refused)

    def probe(self) -> None:
        """See that the disk takes a write now."""
        with self._writing() as connection:
            connection.execute(_SQL["probe"])

    def lead(self) -> bool:
        """Return whether this process is the one that drains: as long as it lives, or `follow`s."""
        if self._lead_fd is None:
            descriptor = os.open(self._draining, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(descriptor)
                return False
            self._lead_fd = descriptor
        return True

    def follow(self) -> None:
        """Let another process drain."""
        if self._lead_fd is not None:
            os.close(self._lead_fd)
            self._lead_fd = None

    def keep_keys(self, keys: list[tuple[bytes, bytes, float]], forget_before: float) -> None:
        """Keep *keys* (digest, document, when it was confirmed), and forget those from long ago."""
        with self._writing() as connection:
            connection.execute(_SQL["forget_keys_before"], (forget_before,))
            connection.executemany(_SQL["keep_key"], keys)

    def forget_key(self, digest: bytes) -> None:
        """Forget a key, if it was kept."""
        with self._writing() as connection:
            connection.execute(_SQL["forget_key"], (digest,))

    def kept_keys(self) -> list[tuple[bytes, bytes, float]]:
        """Return what `keep_keys` kept."""
        return self._opened().execute(_SQL["kept_keys"]).fetchall()

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            self.open()
        assert self._connection is not None
        return self._connection

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction, under the write lock from its beginning."""
        connection = self._opened()
        connection.execute("begin immediate")
        try:
            yield connection
            connection.execute("commit")
        except BaseException:
            if connection.in_transaction:
                connection.execute("rollback")
            raise

    def _mark(self, has_records: bool) -> None:
        """Make the mark agree; only under the write lock."""
        if has_records:
            os.close(os.open(self._pending, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        else:
            Path(self._pending).unlink(missing_ok=True)

    def _give_back(self) -> None:
        """Give the room of a spool that is empty back to the disk."""
        connection = self._opened()
        # `execute` would take one step of it, and each frees one page.
        connection.executescript("pragma incremental_vacuum")
        connection.execute("pragma wal_checkpoint(truncate)").fetchall()


def read_state(path: Path) -> SpoolState:
    """Return what waits in the spool in the file *path*, also while it is in use."""
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        events, size_bytes, refused = connection.execute(_SQL["totals"]).fetchone()
        oldest = connection.execute(_SQL["oldest_at"]).fetchone()
    return SpoolState(events, size_bytes, 0, None if oldest is None else oldest[0], refused)


def _connect(path: Path) -> sqlite3.Connection:
    # SQLite's own files beside it get the permissions of this one.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    connection = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None)
    try:
        connection.execute("pragma auto_vacuum = incremental")
        connection.execute("pragma journal_mode = wal")
        connection.execute("pragma synchronous = full")
        connection.execute("begin immediate")
        for name in _TABLES:
            connection.execute(_SQL[name])
        connection.execute("commit")
    except BaseException:
        connection.close()
        raise
    return connection


def _set_aside(path: Path, reason: Exception) -> None:
    """Rename a file that is no database, so that events have a place and nothing is thrown away."""
    aside = path.with_name(f"{path.name}.broken-{time.time_ns()}")
    path.rename(aside)
    for suffix in ("-wal", "-shm"):
        beside = path.with_name(path.name + suffix)
        if beside.exists():
            beside.rename(aside.with_name(aside.name + suffix))
    logger.error(
        "Spool is broken and was set aside", extra={"path": str(aside), "reason": str(reason)}
    )


def _private_folder(folder: Path) -> None:
    """Make *folder* for us alone, and let its name survive a power cut."""
    if folder.is_dir():
        return
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for parent in folder.parents:
        descriptor = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let one process at a time in."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
