"""Programs that a test starts, watches and ends; nothing else is ever signalled.

The output of a program goes to a file, so that no pipe can fill up, and its end is printed when
a test fails.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

_LOG_TAIL_CHARS = 3000
_STOP_TIMEOUT_S = 30.0


class Program:
    """One command, run as often as wanted, at most once at a time."""

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        name: str,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.command = list(command)
        self.environment = {**os.environ, **(environment or {})}
        self.out_path = folder / f"{name}.out"
        self.log_path = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._out_from = self._log_from = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc is not None:
            print(f"--- {' '.join(self.command)}\n{self.log[-_LOG_TAIL_CHARS:]}")
        self.end()

    @property
    def pid(self) -> int:
        """The process's id, also after its end."""
        assert self._process is not None, "it was not started"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has been started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def out(self) -> str:
        """What this run has written to standard output."""
        return _text_from(self.out_path, self._out_from)

    @property
    def log(self) -> str:
        """What this run has written to standard error."""
        return _text_from(self.log_path, self._log_from)

    def start(self) -> None:
        """Start it, without waiting for anything."""
        assert not self.is_running, "it runs already"
        with self.out_path.open("ab") as out, self.log_path.open("ab") as log:
            self._out_from, self._log_from = out.tell(), log.tell()
            self._process = subprocess.Popen(
                self.command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=log,
            )

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self, timeout_s: float = _STOP_TIMEOUT_S) -> int:
        """Return its exit code, when it has ended by itself."""
        assert self._process is not None
        return self._process.wait(timeout_s)

    def kill(self) -> None:
        """End it as the kernel would for want of memory."""
        self.send_signal(signal.SIGKILL)
        self.wait()

    def stop(
        self, number: signal.Signals = signal.SIGTERM, timeout_s: float = _STOP_TIMEOUT_S
    ) -> int:
        """Ask it to stop; return its exit code."""
        self.send_signal(number)
        return self.wait(timeout_s)

    def end(self) -> None:
        """Leave nothing running, whatever the test did."""
        if self.is_running:
            self.kill()


def _text_from(path: Path, offset: int) -> str:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read().decode(errors="replace")


def is_alive(pid: int) -> bool:
    """Return whether a process runs; one that only waits to be reaped does not."""
    return _state_and_parent(pid)[0] not in ("", "Z", "X")


def offspring(pid: int) -> dict[int, str]:
    """Return the children of a process and theirs, each with its command line."""
    everyone = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    parents = {other: _state_and_parent(other)[1] for other in everyone}
    found: dict[int, str] = {}
    generation = {pid}
    while generation:
        generation = {other for other, parent in parents.items() if parent in generation}
        found |= {other: _command_line(other) for other in generation}
    return found


def mentioning(*texts: str) -> dict[int, str]:
    """Return the living processes in whose command line or environment one of *texts* stands."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            content = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
        except OSError:  # gone, or a stranger's
            continue
        if any(text.encode() in content for text in texts) and is_alive(int(entry.name)):
            found[int(entry.name)] = _command_line(int(entry.name))
    return found


def peak_rss_bytes(pid: int) -> int:
    """Return the most memory that a process has had so far."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024


def _state_and_parent(pid: int) -> tuple[str, int]:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return "", 0
    return fields[0], int(fields[1])


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""
