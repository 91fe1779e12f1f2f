"""Start the programs that are measured and the sink they send to, and talk with both."""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from contenders import Contender

HERE = Path(__file__).parent
# A setting or a proxy of who runs this has no business in the figures.
ENVIRONMENT = {
    key: value
    for key, value in os.environ.items()
    if not key.startswith(("ANALYTICS_", "POSTHOG_", "PYTHON")) and "proxy" not in key.lower()
}


def cores() -> tuple[int | None, int | None]:
    """Return the core for the programs and the one for the sink; None where they share one."""
    usable = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return (usable[0], usable[-1]) if len(usable) > 1 else (None, None)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Sink:
    """The counting server, in a process of its own."""

    def __init__(self, port: int = 0) -> None:
        core = cores()[1]
        self._process = subprocess.Popen(
            [sys.executable, HERE / "sink.py", str(port), *([] if core is None else [str(core)])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def ask(self, what: str, run: str) -> dict[str, Any]:
        """Return what came of *run*: `state`, or `numbers` with the numbers themselves."""
        with urlopen(f"http://127.0.0.1:{self.port}/control/{what}/{run}", timeout=10) as answer:
            facts: dict[str, Any] = json.load(answer)
            return facts

    def stop(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


class Place:
    """Where one run sends to: a collector that is up, hangs or is down, until `open()`."""

    def __init__(self, shared: Sink, run: str, collector: str) -> None:
        self._run = f"hang-{run}" if collector == "hangs" else run
        self._own: Sink | None = None
        self._sink = None if collector == "down" else shared
        self._port = free_port() if collector == "down" else shared.port
        self.url = f"http://127.0.0.1:{self._port}/{self._run}"

    def open(self) -> None:
        """Have the collector answer from now on."""
        if self._sink is None:
            self._own = self._sink = Sink(self._port)
        self._sink.ask("answer", self._run)

    def state(self) -> dict[str, Any]:
        assert self._sink is not None
        return self._sink.ask("state", self._run)

    def numbers(self) -> set[int]:
        return set() if self._sink is None else set(self._sink.ask("numbers", self._run)["numbers"])

    def close(self) -> None:
        if self._own is not None:
            self._own.stop()


class Program:
    """A running `program.py`."""

    def __init__(
        self,
        what: str,
        contender: Contender,
        url: str,
        folder: Path,
        *,
        queue_size: int | None = None,
        options: dict[str, Any] | None = None,
        **arguments: object,
    ) -> None:
        folder.mkdir(exist_ok=True)
        spool = folder / "spool"
        arguments |= {
            "core": cores()[0],
            "adapter": contender.adapter,
            "url": url,
            "folder": str(spool),
            "queue_size": queue_size,
            "options": contender.options | (options or {}),
        }
        self._errors = folder / "stderr"
        with self._errors.open("ab") as errors:
            self._process = subprocess.Popen(
                [contender.python, HERE / "program.py", what, json.dumps(arguments)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=ENVIRONMENT,
                # So that a child that it forked can be ended with it.
                start_new_session=True,
            )
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self.ended_at = 0.0
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self.ended_at = time.monotonic()
        self._lines.put(None)

    def facts(self, within_s: float) -> dict[str, Any] | None:
        """Return what it says next, or None if it says nothing in time."""
        try:
            line = self._lines.get(timeout=within_s)
        except queue.Empty:
            return None
        if line is None:
            last = self._errors.read_text(errors="replace")[-2000:]
            raise SystemExit(f"{self._process.args} ended without a word:\n{last}")
        facts: dict[str, Any] = json.loads(line)
        return facts

    def say_end(self) -> None:
        """Close its stdin."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def is_over(self, within_s: float) -> bool:
        """Wait for its end."""
        self._reader.join(within_s)
        return not self._reader.is_alive()

    def kill(self) -> None:
        """End it with SIGKILL, and all that it forked; harmless when it has ended."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join(10)
