"""Wait for a client to deliver, for as long as there is hope, and hear what it is up against."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

# What is done at the last moment counts.
GRACE_S: Final = 1.0


class Troubles(logging.Handler):
    """What the SDK logs while it delivers: `told` has its words by reason."""

    # These only tell how it ended, and so does the command.
    ENDS: Final = ("spooled", "shutdown", "rejected")

    def __init__(self) -> None:
        super().__init__()
        self.told: dict[str, str] = {}
        self.over = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the words of *record*."""
        reason = getattr(record, "reason", None)
        if reason is None or reason in self.ENDS:
            return
        self.told[reason] = record.getMessage().removeprefix("analytics_sdk: ")
        if reason == "auth_failed":
            # The next try is a minute away, and hardly ends better.
            self.over.set()


@contextmanager
def hear_troubles() -> Iterator[Troubles]:
    """Listen to the SDK's log, which then does not go to standard error."""
    troubles, logger = Troubles(), logging.getLogger("analytics_sdk")
    logger.addHandler(troubles)
    try:
        yield troubles
    finally:
        logger.removeHandler(troubles)


def wait_for(deliver: Callable[[float], bool], timeout_s: float, troubles: Troubles) -> bool:
    """Call *deliver* and wait, unless *troubles* leave no hope; return whether it was done."""
    done: list[bool] = []

    def run() -> None:
        done.append(deliver(timeout_s))
        troubles.over.set()

    threading.Thread(target=run, name="analytics-sdk-wait", daemon=True).start()
    troubles.over.wait(timeout_s + GRACE_S)
    return any(done)
