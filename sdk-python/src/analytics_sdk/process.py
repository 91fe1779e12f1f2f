"""What a process does to us: fork, SIGTERM, exit; and which kinds of process do not suit us."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from time import monotonic
from types import FrameType
from typing import Any, Protocol
from weakref import WeakSet


class Restartable(Protocol):
    """Something with threads and locks, none of which live on in a forked child."""

    def start_afresh(self) -> None:
        """Replace every lock and forget every thread, touching none of the old ones."""


# Weak, because callbacks of `register_at_fork` can't be taken back.
_restartables: WeakSet[Restartable] = WeakSet()


def restart_after_fork(restartable: Restartable) -> None:
    """Have *restartable* start afresh in every child that is forked from now on."""
    _watch_forks()
    _restartables.add(restartable)


class Unforkable:
    """A piece of work that no fork may cut in two: `with unforkable: ...` makes fork() wait.

    The child would have the half of an import that was done, and nobody to do the other.
    """

    # A fork that waited so long goes ahead: better a child without analytics than none.
    longest_wait_s = 10.0

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_held_by_fork = False

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def before_fork(self) -> None:
        """Wait for the work, and keep more of it from starting."""
        self._is_held_by_fork = self._lock.acquire(timeout=self.longest_wait_s)
        if not self._is_held_by_fork:
            # Its thread was lost in a fork that Python did not see, so no other wait will help.
            self.longest_wait_s = 0.0

    def after_fork_in_parent(self) -> None:
        """Let the work go on."""
        if self._is_held_by_fork:
            self._lock.release()

    def after_fork_in_child(self) -> None:
        """Start with a lock that nobody holds."""
        self._lock = threading.Lock()


unforkable = Unforkable()


@contextmanager
def importing() -> Iterator[None]:
    """Make a fork wait for an import on first use, and leave no halves behind if it fails.

    What a package has imported of itself stays when the rest can't be read, for want of descriptors
    say. Without the package it would keep any later attempt from working.
    """
    with unforkable:
        known, is_whole = set(sys.modules), False
        try:
            yield
            is_whole = True
        finally:
            for name in () if is_whole else set(sys.modules) - known:
                parts = name.split(".")
                packages = (".".join(parts[:end]) for end in range(1, len(parts)))
                if any(package not in sys.modules for package in packages):
                    sys.modules.pop(name, None)


@cache
def _watch_forks() -> None:
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=unforkable.before_fork,
            after_in_parent=unforkable.after_fork_in_parent,
            after_in_child=_start_afresh_in_child,
        )


def _start_afresh_in_child() -> None:
    unforkable.after_fork_in_child()
    for restartable in list(_restartables):
        restartable.start_afresh()


def call_at_exit(callback: Callable[[], object]) -> None:
    """Call *callback* once when the process ends in an orderly way."""
    # A fork inherits the registration.
    atexit.unregister(callback)
    atexit.register(callback)
    # A forked `multiprocessing.Process` ends by os._exit(), after finalizers of its own. Without
    # that module this process is none, so it need not be imported.
    multiprocessing = sys.modules.get("multiprocessing.util")
    if multiprocessing is not None and sys.modules["multiprocessing"].parent_process() is not None:
        multiprocessing.Finalize(None, callback, exitpriority=0)


def forget_at_exit(callback: Callable[[], object]) -> None:
    """Take back `call_at_exit()`."""
    atexit.unregister(callback)


@cache
def _exit_began_at() -> float:
    return monotonic()


def seconds_at_exit() -> float:
    """Return for how long the process has been ending; call it then, and only then."""
    return monotonic() - _exit_began_at()


class Deliverer(Protocol):
    """Something that has events to deliver before the process ends."""

    @property
    def is_interrupted(self) -> bool:
        """Whether a signal came while it does what must come to its end first."""

    def hurry(self) -> object:
        """Begin to deliver what waits."""

    def deliver_at_sigterm(self, *, is_end: bool, kept_s: float) -> object:
        """
        Deliver what waits, in a bounded time of which others took *kept_s*.

        Unless *is_end*, more may come.
        """


# A call that a signal comes in the middle of is over by then.
SIGTERM_AGAIN_S = 0.02
# Weak, because a handler stays as long as the process.
_deliverers: WeakSet[Deliverer] = WeakSet()


def watch_sigterm(deliverer: Deliverer) -> bool:
    """
    Have *deliverer* deliver when the process is asked to end; tell whether that can be had.

    Only the main thread can, and only around a handler that Python knows.
    """
    previous = signal.getsignal(signal.SIGTERM)
    if not isinstance(previous, _SigtermHandler):
        if previous is None or threading.current_thread() is not threading.main_thread():
            return False
        # A process that ignores the signal goes on, and delivers at its end.
        if previous is not signal.SIG_IGN:
            signal.signal(signal.SIGTERM, _SigtermHandler(previous))
    _deliverers.add(deliverer)
    return True


class _SigtermHandler:
    """Delivers, then lets the signal do what it would have done without us."""

    def __init__(self, previous: Callable[[int, FrameType | None], Any] | int) -> None:
        self._previous = previous

    def __call__(self, number: int, frame: FrameType | None) -> None:
        # A handler of the program's may well go on tracking, to end in order later. And the first
        # process of a container does not die of a signal that has no handler.
        is_end = not callable(self._previous) and os.getpid() != 1
        if any(deliverer.is_interrupted for deliverer in list(_deliverers)):
            # What it waits for can only go on when this handler is left.
            again = threading.Timer(SIGTERM_AGAIN_S, os.kill, (os.getpid(), number))
            again.daemon = True
            again.start()
            return
        # All share the time, so those whose turn comes later begin now.
        deliverers, began_at = list(_deliverers), monotonic()
        for deliverer in deliverers:
            deliverer.hurry()
        for deliverer in deliverers:
            deliverer.deliver_at_sigterm(is_end=is_end, kept_s=monotonic() - began_at)
        if callable(self._previous):
            self._previous(number, frame)
        elif is_end:
            # By the signal, so that the exit status says so.
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)


# The first uWSGI whose threads run without `enable-threads`.
UWSGI_WITH_THREADS = (2, 0, 27)


def uwsgi_advice() -> str | None:
    """Return what to change in the options of the uWSGI around us, None if there is nothing."""
    # It is no module of a file: only uWSGI itself puts it there.
    uwsgi = sys.modules.get("uwsgi")
    options = getattr(uwsgi, "opt", None)
    if not isinstance(options, dict):
        return None

    def has(*names: str) -> bool:
        return any(_is_on(options.get(name)) for name in names)

    advice = []
    version = tuple(getattr(uwsgi, "version_info", ()))[:3]
    if version < UWSGI_WITH_THREADS and not has("enable-threads", "threads"):
        advice.append("enable-threads, else the thread that delivers hardly runs")
    forks = has("master", "processes", "workers", "cheaper")
    if forks and not has("lazy-apps", "lazy", "py-call-uwsgi-fork-hooks"):
        advice.append(
            "lazy-apps or py-call-uwsgi-fork-hooks, else events may wait for ever in workers that "
            "were forked after the first event"
        )
    return f"uWSGI needs {'; and '.join(advice)}" if advice else None


def _is_on(value: object) -> bool:
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    return text.lower() not in ("none", "", "0", "false", "off", "no")


def require_main_interpreter() -> None:
    """Raise ImportError in a sub-interpreter, where orjson may take the whole process down."""
    for name in ("_interpreters", "_xxsubinterpreters"):  # since Python 3.13; before
        try:
            interpreters = import_module(name)
        except ImportError:
            continue
        if interpreters.get_current() != interpreters.get_main():
            raise ImportError(
                "analytics_sdk runs in the main interpreter of a process only: orjson, which it is "
                "built on, can't be loaded twice. With mod_wsgi set WSGIApplicationGroup to "
                "%{GLOBAL}; otherwise use threads or processes."
            )
        return
