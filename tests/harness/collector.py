"""The collector as its users run it: `serve` and `worker` on given databases, and `up`."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from analytics_collector.embedded.directory import DataDir
from analytics_collector.embedded.postgres import EmbeddedPostgres
from harness.client import NO_ANSWER, Sender
from harness.database import SECRET, Database
from harness.processes import Program, mentioning, offspring
from harness.waiting import PATIENCE_S, wait_for

COMMAND = (sys.executable, "-m", "analytics_collector")
_PROBE_TIMEOUT_S = 5.0


class Collector:
    """A database and a Redis with processes of the collector on them."""

    def __init__(self, database: Database, redis_url: str, folder: Path) -> None:
        self.database = database
        self._folder = folder
        self._environment = {
            "ANALYTICS_DATABASE_URL": database.url,
            "ANALYTICS_REDIS_URL": redis_url,
            "ANALYTICS_SECRET": SECRET,
        }

    def serve(self, *, port: int = 0, **settings: object) -> Serve:
        """Return a server; *settings* are those of the environment, without their prefix."""
        return Serve(self._folder, self._environment | _variables(settings), port)

    def worker(self, **settings: object) -> Program:
        """Return a worker."""
        environment = self._environment | _variables(settings)
        return Program([*COMMAND, "worker"], self._folder, "worker", environment)


def _variables(settings: Mapping[str, object]) -> dict[str, str]:
    return {f"ANALYTICS_{name.upper()}": str(value) for name, value in settings.items()}


class Serve(Program):
    """A server. It keeps the port of its first start, so that clients find it again."""

    def __init__(self, folder: Path, environment: Mapping[str, str], port: int) -> None:
        super().__init__([*COMMAND, "serve", "--port", str(port)], folder, "serve", environment)
        self.port = port

    def __enter__(self) -> Self:
        self.start()
        try:
            self.wait_ready()
        except BaseException:
            print(self.log)
            self.end()
            raise
        return self

    @property
    def url(self) -> str:
        """Where it listens; known when it is ready."""
        assert self.port, "it has not listened yet"
        return f"http://127.0.0.1:{self.port}"

    @property
    def faults(self) -> list[str]:
        """What this run has logged that no outside trouble explains: errors, and no JSON at all."""
        return [line for line in self.log.splitlines() if not _is_harmless(line)]

    def wait_ready(self) -> None:
        """Wait until it takes events."""
        if not self.port:
            self.port = wait_for(self._port_in_log, "the port is in the log")
            self.command[-1] = str(self.port)
        wait_for(self._is_ready, "the collector is ready")

    def _port_in_log(self) -> int:
        assert self.is_running, self.log
        for line in self.log.splitlines(keepends=True):
            if line.endswith("\n") and '"Listening"' in line:
                port: int = json.loads(line)["port"]
                return port
        return 0

    def _is_ready(self) -> bool:
        assert self.is_running, self.log
        return answers(self.url, "/readyz")


def _is_harmless(line: str) -> bool:
    try:
        return json.loads(line)["level"] in ("debug", "info", "warning")
    except ValueError:
        return False


class Up(Program):
    """`analytics-collector up` on a directory."""

    def __init__(
        self, data_dir: Path, folder: Path, *, port: int = 0, as_json: bool = True
    ) -> None:
        command = [*COMMAND, "up", "--data-dir", str(data_dir), "--port", str(port)]
        super().__init__(command + ["--json"] * as_json, folder, "up")
        self.data_dir = data_dir

    def __enter__(self) -> Self:
        self.start()
        try:
            self.wait_ready()
        except BaseException:
            print(self.log)
            self.end()
            raise
        return self

    @property
    def said(self) -> dict[str, Any]:
        """What it printed when it was ready, be it for programs or for people."""
        if "--json" not in self.command:
            return dict(line.split(": ", 1) for line in self.out.splitlines()[-2:])
        said: dict[str, Any] = json.loads(self.out)
        return said

    @property
    def url(self) -> str:
        """Where it takes events."""
        url: str = self.said["url"]
        return url

    @property
    def key(self) -> str:
        """The key that it printed."""
        key: str = self.said["key"]
        return key

    def wait_ready(self) -> None:
        """Wait until it has printed all that it prints."""
        last = '"pid"' if "--json" in self.command else "key: "
        wait_for(lambda: self._has_printed(last), "up is ready", 2 * PATIENCE_S)

    def child(self, part_of_command: str) -> int | None:
        """Return the process below it whose command line holds this."""
        for pid, command in sorted(offspring(self.pid).items()):
            if part_of_command in command:
                return pid
        return None

    @property
    def database(self) -> Database:
        """Its database, for a look past the API."""
        return Database(EmbeddedPostgres(self.data_dir).dsn)

    def left_behind(self) -> dict[int, str]:
        """Return every process that has to do with its directory, by pid."""
        return mentioning(str(self.data_dir), str(DataDir(self.data_dir).sockets))

    def end(self) -> None:
        """Stop it in order, so that its servers go with it at once."""
        if self.is_running:
            try:
                self.stop(signal.SIGTERM, 2 * PATIENCE_S)
            except subprocess.TimeoutExpired:
                self.kill()  # the kernel tells its children

    def _has_printed(self, text: str) -> bool:
        assert self.is_running, self.log
        return text in self.out and self.out.endswith("\n")


def run_command(
    *arguments: str, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command of `analytics-collector` to its end."""
    return subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        env=None if environment is None else dict(environment),
        timeout=2 * PATIENCE_S,
        check=False,
    )


def answers(url: str, path: str = "/readyz") -> bool:
    """Return whether a server says 200."""
    try:
        with Sender(url, "", _PROBE_TIMEOUT_S) as sender:
            return sender.get(path).status == 200
    except NO_ANSWER:
        return False


def free_port() -> int:
    """Return a port on which nobody listens at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port
