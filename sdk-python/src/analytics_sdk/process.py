"""What a process does to us: fork and exit."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Callable
from functools import cache
from typing import Protocol
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

    def after_fork_in_parent(self) -> None:
        """Let the work go on."""
        if self._is_held_by_fork:
            self._lock.release()

    def after_fork_in_child(self) -> None:
        """Start with a lock that nobody holds."""
        self._lock = threading.Lock()


unforkable = Unforkable()


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
