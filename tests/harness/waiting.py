"""Patience without a fixed pause."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE_S = 90.0
_POLL_S = 0.02


def pause(seconds: float) -> None:
    """Let others work for a while that is part of what is tested."""
    threading.Event().wait(seconds)


def wait_for(condition: Callable[[], T], what: str = "", timeout_s: float = PATIENCE_S) -> T:
    """Return the first true value of *condition*; fail if there is none in time."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:g} s: {what or 'what was waited for'}")
        pause(_POLL_S)
    return value
