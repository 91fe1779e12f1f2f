"""What a process does to us: fork and exit."""

from __future__ import annotations

import atexit
import os
import sys
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


@cache
def _watch_forks() -> None:
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_start_afresh_in_child)


def _start_afresh_in_child() -> None:
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
