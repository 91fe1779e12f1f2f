"""Valkey in the data directory, on a unix socket, with an append-only file.

Describes the server and prepares its files; the supervisor runs it. Runs as the same account as
PostgreSQL: root's rights would be of no use to it, and one rule is easier to keep than two.
"""

import os
import socket
from pathlib import Path
from urllib.parse import quote

from analytics_collector.embedded.account import server_account
from analytics_collector.embedded.binaries import find_valkey_server
from analytics_collector.embedded.directory import DataDir, private_folder
from analytics_collector.embedded.process import ChildSpec

_PROBE_TIMEOUT_S = 1.0

_OPTIONS = {
    "port": "0",
    "unixsocketperm": "700",
    "appendonly": "yes",
    "appendfsync": "everysec",
    "save": "",
    "maxmemory-policy": "noeviction",
}


class EmbeddedValkey:
    """The Valkey of one data directory."""

    def __init__(self, data_dir: Path) -> None:
        self._dir = DataDir(data_dir)
        self._socket = self._dir.sockets / "valkey.sock"

    @property
    def url(self) -> str:
        """Where it listens while it runs."""
        return f"unix://{quote(str(self._socket), safe='/')}"

    def child(self) -> ChildSpec:
        """Return what the supervisor needs to run the server."""
        program = find_valkey_server()
        self._dir.create()
        options = {
            **_OPTIONS,
            "unixsocket": str(self._socket),
            "dir": str(self._dir.path / "valkey"),
        }
        account = server_account((self._dir.path, self._dir.sockets), (program,))

        def prepare(_lock_fd: int) -> None:
            private_folder(self._dir.sockets, account)
            self._dir.private("valkey", account)

        return ChildSpec(
            name="valkey",
            argv=[str(program), *(part for k, v in options.items() for part in (f"--{k}", v))],
            env={"PATH": os.defpath, "LC_ALL": "C"},
            cwd=Path("/"),
            ready=self.is_ready,
            account=account,
            prepare=prepare,
            lock_path=self._dir.lock("valkey"),
            log_path=self._dir.log("valkey"),
            umask=0o077,
        )

    def is_ready(self) -> bool:
        """Whether the server answers, with its data loaded."""
        try:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(_PROBE_TIMEOUT_S)
                probe.connect(str(self._socket))
                probe.sendall(b"PING\r\n")
                return probe.recv(5) == b"+PONG"
        except OSError:
            return False
