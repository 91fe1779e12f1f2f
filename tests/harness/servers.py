"""A PostgreSQL and a Valkey of a test's own, to be killed, emptied and started again.

Those of the session (`servers` in the root's conftest) must stay whole for everybody else.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

from analytics_collector.embedded.postgres import EmbeddedPostgres
from analytics_collector.embedded.process import Child, ChildSpec
from analytics_collector.embedded.valkey import EmbeddedValkey
from harness.processes import offspring
from harness.waiting import PATIENCE_S, wait_for


class Server:
    """One server, as `up` would run it, but without anybody who starts it again."""

    def __init__(self, spec: ChildSpec, url: str) -> None:
        self.url = url
        self._child = Child(spec)

    @property
    def spec(self) -> ChildSpec:
        """How it is run."""
        return self._child.spec

    @property
    def pid(self) -> int:
        """The id of its (main) process."""
        assert self._child.pid is not None
        return self._child.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._child.is_running

    def start(self) -> None:
        """Start it unless it runs, and wait until it answers. Only from the main thread."""
        if self._child.is_running:
            return
        self._child.start(leftover_timeout_s=PATIENCE_S)
        ready = self._child.spec.ready
        assert ready is not None
        wait_for(ready, f"{self._child.spec.name} is ready")

    def crash(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End it at once; SIGQUIT is PostgreSQL's immediate shutdown, without a checkpoint.

        SIGKILL takes each of its processes, so that none can do anything more in good order.
        """
        doomed = self._stand_still() if number == signal.SIGKILL else [self.pid]
        for pid in doomed:
            with contextlib.suppress(ProcessLookupError):  # one that was ending anyway
                os.kill(pid, number)
        wait_for(lambda: not self._child.is_running, f"{self._child.spec.name} is gone")

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Let it take no step inside the block, neither old processes nor new ones."""
        pids = self._stand_still()
        try:
            yield
        finally:
            for pid in reversed(pids):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def _stand_still(self) -> list[int]:
        """Stop all of its processes, the main one first, which could make others; return them."""
        os.kill(self.pid, signal.SIGSTOP)
        pids = [self.pid, *offspring(self.pid)]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        return pids

    def stop(self) -> None:
        """End it in order; harmless if it does not run."""
        self._child.stop()


class OwnServers:
    """Both of them, in one data directory."""

    def __init__(self, data_dir: Path) -> None:
        postgres, valkey = EmbeddedPostgres(data_dir), EmbeddedValkey(data_dir)
        self.postgres = Server(postgres.child(), postgres.dsn)
        self.valkey = Server(valkey.child(), valkey.url)

    def start(self) -> None:
        """Start what does not run."""
        self.postgres.start()
        self.valkey.start()

    def stop(self) -> None:
        """Stop what runs."""
        self.valkey.stop()
        self.postgres.stop()


@contextmanager
def own_servers() -> Iterator[OwnServers]:
    """Give running servers in a new directory, which goes with them."""
    # Not under pytest's own folder, whose long name leaves no room for a socket's.
    home = Path(tempfile.mkdtemp(prefix="analytics-chaos-"))
    servers = OwnServers(home / "data")
    try:
        servers.start()
        yield servers
    finally:
        servers.stop()
        shutil.rmtree(home)


def valkey_command(url: str, *words: str) -> bytes:
    """Send one command to the Valkey at a unix URL and return the beginning of its raw answer."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PATIENCE_S)
        connection.connect(unquote(url.removeprefix("unix://").partition("?")[0]))
        connection.sendall(" ".join(words).encode() + b"\r\n")
        return connection.recv(4096)
