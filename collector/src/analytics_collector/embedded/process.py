"""Start one child process that dies with its parent, and stop it in an orderly way.

Linux does it with the parent-death signal. Elsewhere (macOS) there is none: there the next start
finds the lock of the last run still held and asks its holder to stop.
"""

import contextlib
import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from analytics_collector.embedded.account import Account, become
from analytics_collector.embedded.binaries import EmbeddedError
from analytics_collector.embedded.lock import read_pid, try_lock, write_pid

logger = logging.getLogger(__name__)

_IS_LINUX = sys.platform == "linux"
_PR_SET_PDEATHSIG = 1
_LOG_TAIL_BYTES = 1000
_MAX_LOG_BYTES = 10 * 1024 * 1024
_PREPARE_TIMEOUT_S = 120.0
_POLL_S = 0.01


class ChildFailed(EmbeddedError):
    """A child did not start or does not stay up; the end of its log says why."""

    def __init__(self, name: str, what: str, log_path: Path | None = None) -> None:
        tail = _tail(log_path)
        super().__init__(f"{name} {what}" + (f"; its log {log_path} ends:\n{tail}" if tail else ""))
        self.name = name


class LeftoverRunning(EmbeddedError):
    """Processes of an earlier run still use the data directory; wait for them or end them."""

    def __init__(self, name: str, pid: int | None, waited_s: float) -> None:
        super().__init__(
            f"{name} of an earlier run (pid {pid or 'unknown'}) or a process of its own still "
            f"works in the data directory after {waited_s:g} s"
        )
        self.pid = pid


@dataclass(frozen=True)
class ChildSpec:
    """What to run, and how to know it is up and how to end it.

    `prepare` runs before each start with the descriptor of the lock. The child and all its
    offspring hold `lock_path`, so that it is free exactly when the last of them has gone.
    Without `env` and `log_path` the child has the environment and the output of its parent.
    """

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] | None = None
    cwd: Path | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout_s: float = 10.0
    ready: Callable[[], bool] | None = None
    ready_timeout_s: float = 60.0
    account: Account | None = None
    prepare: Callable[[int], None] | None = None
    lock_path: Path | None = None
    log_path: Path | None = None
    umask: int = -1


class Child:
    """One process made from a `ChildSpec`, started as often as needed."""

    def __init__(self, spec: ChildSpec) -> None:
        self.spec = spec
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The id of the process that was started last; None before."""
        return None if self._process is None else self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether that process has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """The exit code; negative for a signal; None while it runs or before its start."""
        return None if self._process is None else self._process.poll()

    def start(self, *, leftover_timeout_s: float = 30.0) -> None:
        """Start the process, once nothing of its last run is left."""
        if self.spec.log_path is not None:
            _rotate(self.spec.log_path)
        with _lock_for(self.spec, leftover_timeout_s) as lock_fd:
            if self.spec.prepare is not None:
                self.spec.prepare(lock_fd)
            self._process = _spawn(self.spec, lock_fd)
            if lock_fd >= 0:
                write_pid(lock_fd, self._process.pid)
        logger.info("Child started", extra={"child": self.spec.name, "pid": self._process.pid})

    def stop(self) -> None:
        """Ask the process to stop, and kill it with its process group when time is up."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(self.spec.stop_signal)
        try:
            self._process.wait(self.spec.stop_timeout_s)
        except subprocess.TimeoutExpired:
            logger.warning("Child killed", extra={"child": self.spec.name, "pid": self.pid})
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def run_to_end(
    spec: ChildSpec, argv: Sequence[str], lock_fd: int, *, stdin_text: str | None = None
) -> None:
    """Run a command the way the child will run, and wait until it is done."""
    process = _spawn(spec, lock_fd, argv=argv, stdin=subprocess.PIPE)
    try:
        process.communicate((stdin_text or "").encode(), timeout=_PREPARE_TIMEOUT_S)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if process.returncode != 0:
        what = f"could not be prepared ({Path(argv[0]).name} exited with {process.returncode})"
        raise ChildFailed(spec.name, what, spec.log_path)


@contextlib.contextmanager
def _lock_for(spec: ChildSpec, leftover_timeout_s: float) -> Iterator[int]:
    """Hold the child's lock until the child has inherited it; -1 if it has none."""
    if spec.lock_path is None:
        yield -1
        return
    descriptor = _wait_for_lock(spec, spec.lock_path, leftover_timeout_s)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _wait_for_lock(spec: ChildSpec, path: Path, timeout_s: float) -> int:
    deadline = time.monotonic() + timeout_s
    is_asked = _IS_LINUX
    while (descriptor := try_lock(path)) is None:
        pid = read_pid(path)
        if not is_asked and pid is not None:
            # No parent-death signal here: its parent died and did not take it along.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, spec.stop_signal)
            is_asked = True
        if time.monotonic() > deadline:
            raise LeftoverRunning(spec.name, pid, timeout_s)
        time.sleep(_POLL_S)
    return descriptor


def _spawn(
    spec: ChildSpec,
    lock_fd: int,
    *,
    argv: Sequence[str] | None = None,
    stdin: int = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    _require_lasting_thread()
    command = list(spec.argv if argv is None else argv)
    tie = None
    user = group = None
    if spec.account is not None and _IS_LINUX:
        command = become(spec.account, spec.stop_signal) + command
    elif spec.account is not None:
        user, group = spec.account.uid, spec.account.gid
    elif _IS_LINUX:
        tie = tie_to_parent(os.getpid(), spec.stop_signal)
    with _open_log(spec.log_path) as log:
        try:
            return subprocess.Popen(
                command,
                env=None if spec.env is None else dict(spec.env),
                cwd=spec.cwd,
                stdin=stdin,
                stdout=log,
                stderr=None if log is None else subprocess.STDOUT,
                pass_fds=(lock_fd,) if lock_fd >= 0 else (),
                # Ctrl-C goes to the whole foreground group; the order of the end is ours to keep.
                start_new_session=True,
                umask=spec.umask,
                preexec_fn=tie,  # noqa: PLW1509
                user=user,
                group=group,
                extra_groups=None if user is None else [],
            )
        except OSError as exc:
            raise ChildFailed(spec.name, f"could not be started: {exc}") from exc


def _require_lasting_thread() -> None:
    # The signal comes when the parent *thread* ends, not the process (prctl(2)).
    if threading.current_thread() is not threading.main_thread():
        raise EmbeddedError("embedded servers can only be started from the main thread")


def tie_to_parent(parent_pid: int, parent_death_signal: signal.Signals) -> Callable[[], None]:
    """Return what a child does between fork and exec to die with its parent."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def tie() -> None:
        if prctl(_PR_SET_PDEATHSIG, int(parent_death_signal)) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
        # The parent may have died before the call: then nobody would ever send the signal.
        if os.getppid() != parent_pid:
            os._exit(1)

    return tie


@contextlib.contextmanager
def _open_log(path: Path | None) -> Iterator[int | None]:
    if path is None:
        yield None
        return
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _rotate(path: Path) -> None:
    if path.exists() and path.stat().st_size > _MAX_LOG_BYTES:
        path.replace(path.with_name(path.name + ".1"))


def _tail(path: Path | None) -> str:
    if path is None or not path.exists():
        return ""
    with path.open("rb") as log:
        log.seek(max(0, path.stat().st_size - _LOG_TAIL_BYTES))
        return log.read().decode(errors="replace").strip()
