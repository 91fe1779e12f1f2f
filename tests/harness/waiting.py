"""Patience without a fixed pause."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE_S = 90.0
# Often at first, then ever more seldom: to look costs a processor that others wait for.
_FIRST_POLL_S = 0.02
_LAST_POLL_S = 0.25
_POLL_SHARE = 0.1


def pause(seconds: float) -> None:
    """Let others work for a while that is part of what is tested."""
    threading.Event().wait(seconds)


def wait_for(condition: Callable[[], T], what: str = "", timeout_s: float = PATIENCE_S) -> T:
    """Return the first true value of *condition*; fail if there is none in time."""
    began = time.monotonic()
    while not (value := condition()):
        waited_s = time.monotonic() - began
        if waited_s > timeout_s:
            raise AssertionError(f"not within {timeout_s:g} s: {what or 'what was waited for'}")
        pause(min(max(_FIRST_POLL_S, waited_s * _POLL_SHARE), _LAST_POLL_S))
    return value
