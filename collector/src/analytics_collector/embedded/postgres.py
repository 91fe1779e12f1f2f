"""PostgreSQL in the data directory, on a unix socket, with nothing of its safety turned off.

Describes the server and prepares its files; the supervisor runs it. A cluster appears under its
name only when it is complete, database included, so whatever lies there can be started.
"""

import os
import shutil
import signal
import socket
import struct
from pathlib import Path
from urllib.parse import quote

from analytics_collector.embedded.account import server_account
from analytics_collector.embedded.binaries import find_postgres_bin
from analytics_collector.embedded.directory import DataDir, private_folder
from analytics_collector.embedded.process import ChildSpec, run_to_end

_DATABASE = "analytics"
_SUPERUSER = "postgres"
_SOCKET_NAME = ".s.PGSQL.5432"
_PROTOCOL_3_0 = 196608
_TERMINATE = b"X\0\0\0\4"
_PROBE_TIMEOUT_S = 1.0

_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "50",
    "shared_buffers": "256MB",
    # Rare checkpoints: after each, the first change of a page writes the whole page to the log, and
    # the indexes of events are changed all over.
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


class EmbeddedPostgres:
    """The PostgreSQL of one data directory."""

    def __init__(self, data_dir: Path) -> None:
        self._dir = DataDir(data_dir)
        self._cluster = self._dir.path / "postgres"

    @property
    def dsn(self) -> str:
        """Where it listens while it runs."""
        folder = quote(str(self._dir.sockets), safe="/")
        return f"postgresql://{_SUPERUSER}@/{_DATABASE}?host={folder}"

    def child(self) -> ChildSpec:
        """Return what the supervisor needs to run the server."""
        programs = find_postgres_bin()
        self._dir.create()
        # A directory name may hold commas and quotes, and this setting is a list.
        sockets = '"' + str(self._dir.sockets).replace('"', '""') + '"'
        settings = {**_SETTINGS, "unix_socket_directories": sockets}
        options = [part for item in settings.items() for part in ("-c", "=".join(item))]
        return ChildSpec(
            name="postgres",
            argv=[str(programs / "postgres"), "-D", str(self._cluster), *options],
            env={"PATH": os.defpath, "LC_ALL": "C"},
            cwd=Path("/"),
            stop_signal=signal.SIGINT,  # "fast shutdown": ends the sessions, writes a checkpoint
            stop_timeout_s=30.0,
            ready=self.is_ready,
            ready_timeout_s=600.0,  # after a crash it first replays its log
            account=server_account(
                (self._dir.path, self._dir.sockets),
                (programs / "postgres", programs / "initdb"),
            ),
            prepare=self._prepare,
            lock_path=self._dir.lock("postgres"),
            log_path=self._dir.log("postgres"),
            umask=0o077,
        )

    def is_ready(self) -> bool:
        """Whether a client would get into the database now."""
        user = f"user\0{_SUPERUSER}\0database\0{_DATABASE}\0\0".encode()
        hello = struct.pack("!ii", len(user) + 8, _PROTOCOL_3_0) + user
        try:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(_PROBE_TIMEOUT_S)
                probe.connect(str(self._dir.sockets / _SOCKET_NAME))
                probe.sendall(hello + _TERMINATE)
                answer = probe.recv(1)
                while probe.recv(4096):  # to the end, or the server logs a lost connection
                    pass
                return answer == b"R"  # authentication; an error would be b"E"
        except OSError:
            return False

    def _prepare(self, lock_fd: int) -> None:
        spec = self.child()
        private_folder(self._dir.sockets, spec.account)
        # We hold the lock, so the last postmaster and its backends are gone, and a process id
        # in these files can only be a stranger's who would keep PostgreSQL from starting.
        for stale in (
            self._cluster / "postmaster.pid",
            self._dir.sockets / _SOCKET_NAME,
            self._dir.sockets / f"{_SOCKET_NAME}.lock",
        ):
            stale.unlink(missing_ok=True)
        if not self._cluster.exists():
            self._make_cluster(spec, lock_fd)

    def _make_cluster(self, spec: ChildSpec, lock_fd: int) -> None:
        """Make the cluster and its database under another name, then give it its own."""
        unfinished = self._cluster.with_name("postgres.unfinished")
        if unfinished.exists():
            shutil.rmtree(unfinished)
        self._dir.private(unfinished.name, spec.account)
        programs = find_postgres_bin()
        initdb = [str(programs / "initdb"), "-D", str(unfinished), "-U", _SUPERUSER]
        initdb += ["--auth=trust", "--encoding=UTF8", "--no-instructions"]
        initdb += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
        run_to_end(spec, initdb, lock_fd)
        single_user = [str(programs / "postgres"), "--single", "-D", str(unfinished), "postgres"]
        run_to_end(spec, single_user, lock_fd, stdin_text=f"CREATE DATABASE {_DATABASE}\n")
        unfinished.rename(self._cluster)
        _sync_folder(self._cluster.parent)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
