"""Keep a few processes running, in order, and end them in the opposite order.

One thread, one loop: it looks at its children ten times a second and starts again whichever died.
The class knows nothing of what its children do; `embedded_servers` is its shortest use.
"""

import logging
import os
import select
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from analytics_collector.embedded.directory import DataDir
from analytics_collector.embedded.postgres import EmbeddedPostgres
from analytics_collector.embedded.process import Child, ChildFailed, ChildSpec, LeftoverRunning
from analytics_collector.embedded.valkey import EmbeddedValkey

logger = logging.getLogger(__name__)

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_WATCH_INTERVAL_S = 0.1
_FIRST_READY_POLL_S = 0.005
_SLOWEST_READY_POLL_S = 0.1
# Short, because a request to stop must not wait behind it; the next try waits again.
_RESTART_LEFTOVER_TIMEOUT_S = 3.0
_MAX_FAILURES = 10
_FAILURE_WINDOW_S = 60.0
_FIRST_BACKOFF_S = 0.1


class Supervisor:
    """The owner of the children, and with `data_dir` the only one on that directory.

    Children die with the thread that started them: use it from the main thread.
    """

    def __init__(
        self,
        children: Sequence[ChildSpec],
        *,
        data_dir: Path | None = None,
        longest_backoff_s: float = 5.0,
    ) -> None:
        self._watched = [_Watched(Child(spec), longest_backoff_s) for spec in children]
        self._interval_s = min(_WATCH_INTERVAL_S, longest_backoff_s)
        self._dir = None if data_dir is None else DataDir(data_dir)
        self._pid = os.getpid()
        self._is_started = False
        self._stop_requests: int | None = None

    def start(self) -> None:
        """Start every child, each when the one before is ready; on any failure stop them all."""
        self._pid = os.getpid()
        if self._dir is not None:
            self._dir.claim()
        self._is_started = True
        try:
            for watched in self._watched:
                watched.child.start()
                if self._wait_ready(watched.child):
                    return
        except BaseException:
            self.stop()
            raise

    def run_until_signal(self, on_started: Callable[[], None] | None = None) -> int:
        """Start the children if need be, watch them until SIGINT or SIGTERM, stop them, return 0.

        Leave the start to this method, and what follows it to `on_started`, to have a signal in
        the middle of the start end in the same orderly way.
        """
        with _stop_requests() as self._stop_requests:
            try:
                if not self._is_started:
                    self.start()
                if on_started is not None and not self._pause(0):
                    on_started()
                while not self._pause(self._interval_s):
                    self._revive_the_dead()
            finally:
                self.stop()
                self._stop_requests = None
        return 0

    def stop(self) -> None:
        """Stop the children, the last started first; harmless when there are none."""
        if os.getpid() != self._pid:
            return  # a fork of ours that unwinds: these are not its children
        for watched in reversed(self._watched):
            watched.child.stop()
        self._is_started = False
        if self._dir is not None:
            self._dir.release()

    def _revive_the_dead(self) -> None:
        now = time.monotonic()
        for watched in self._watched:
            if watched.restart_at is None:
                if watched.child.is_running:
                    continue
                self._count_failure(watched, now)
            elif now >= watched.restart_at:
                self._restart(watched)

    def _restart(self, watched: "_Watched") -> None:
        watched.restart_at = None
        try:
            watched.child.start(leftover_timeout_s=_RESTART_LEFTOVER_TIMEOUT_S)
            self._wait_ready(watched.child)
        except (ChildFailed, LeftoverRunning):
            watched.child.stop()
            self._count_failure(watched, time.monotonic())

    def _count_failure(self, watched: "_Watched", now: float) -> None:
        spec = watched.child.spec
        exit_code = watched.child.exit_code
        logger.warning("Child died", extra={"child": spec.name, "exit_code": exit_code})
        delay_s = watched.next_delay_s(now)
        if delay_s is None:
            what = f"failed {_MAX_FAILURES} times in {_FAILURE_WINDOW_S:.0f} s (last: {exit_code})"
            raise ChildFailed(spec.name, what, spec.log_path)
        watched.restart_at = now + delay_s

    def _wait_ready(self, child: Child) -> bool:
        """Wait until the child is ready, and return whether we are asked to stop instead."""
        spec = child.spec
        deadline = time.monotonic() + spec.ready_timeout_s
        poll_s = _FIRST_READY_POLL_S
        while spec.ready is not None:
            if not child.is_running:
                what = f"exited with {child.exit_code} before it was ready"
                raise ChildFailed(spec.name, what, spec.log_path)
            if spec.ready():
                break
            if time.monotonic() > deadline:
                what = f"was not ready within {spec.ready_timeout_s:g} s"
                raise ChildFailed(spec.name, what, spec.log_path)
            if self._pause(poll_s):
                return True
            poll_s = min(poll_s * 1.5, _SLOWEST_READY_POLL_S)
        return self._pause(0)

    def _pause(self, seconds: float) -> bool:
        """Wait, and say at once when we are asked to stop."""
        requests = [] if self._stop_requests is None else [self._stop_requests]
        return bool(select.select(requests, [], [], seconds)[0])


class _Watched:
    """A child with the memory of its failures."""

    def __init__(self, child: Child, longest_backoff_s: float) -> None:
        self.child = child
        self._longest_backoff_s = longest_backoff_s
        self.restart_at: float | None = None
        self._failures: deque[float] = deque(maxlen=_MAX_FAILURES)

    def next_delay_s(self, now: float) -> float | None:
        """Count a failure; return the time to wait before the next start, None to give up."""
        self._failures.append(now)
        recent = sum(1 for failed_at in self._failures if now - failed_at < _FAILURE_WINDOW_S)
        if recent >= _MAX_FAILURES:
            return None
        return min(_FIRST_BACKOFF_S * 2.0 ** (recent - 1), self._longest_backoff_s)


@contextmanager
def embedded_servers(data_dir: Path) -> Iterator[tuple[str, str]]:
    """Run PostgreSQL and Valkey for the length of a block; give the DSN and the Redis URL.

    Installs no signal handlers and watches nothing: made for test sessions.
    """
    postgres, valkey = EmbeddedPostgres(data_dir), EmbeddedValkey(data_dir)
    supervisor = Supervisor([postgres.child(), valkey.child()], data_dir=data_dir)
    supervisor.start()
    try:
        yield postgres.dsn, valkey.url
    finally:
        supervisor.stop()


@contextmanager
def _stop_requests() -> Iterator[int]:
    """Turn the stop signals into bytes in a pipe, and give its reading end."""
    reader, writer = os.pipe()  # not inherited by children (PEP 446)
    os.set_blocking(writer, False)

    def request_stop(_signal_number: int, _frame: FrameType | None) -> None:
        os.write(writer, b"\0")

    previous = {number: signal.signal(number, request_stop) for number in _STOP_SIGNALS}
    try:
        yield reader
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        os.close(reader)
        os.close(writer)
