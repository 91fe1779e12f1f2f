"""Log what repeats once a minute for each reason, and count the rest.

Never configures logging. Never given a key, a payload, or anything else of a user's.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from analytics_sdk.errors import call_user_code

INTERVAL_S = 60.0


class QuietLogger:
    """A logger that writes at most one line a reason a minute."""

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._logger = logging.getLogger(name)
        self._clock = clock
        self._next_at: dict[str, float] = {}
        self._silent: dict[str, int] = {}

    def warning(self, reason: str, message: str, **facts: object) -> None:
        """Log the constant *message* and the facts behind it; all of them are extras too.

        Without a configuration of logging only the text shows, so the facts stand in it.
        """
        now = self._clock()
        if now < self._next_at.get(reason, now):
            self._silent[reason] = self._silent.get(reason, 0) + 1
            return
        # Before the call: a logging handler that tracks must not come round for ever.
        self._next_at[reason] = now + INTERVAL_S
        suppressed = self._silent.pop(reason, 0)
        told = ", ".join(f"{name}: {fact}" for name, fact in facts.items() if fact is not None)
        # What handlers and filters of the program raise must not reach who tracks.
        call_user_code(
            self._logger.warning,
            "analytics_sdk: %s%s",
            message,
            f" ({told})" if told else "",
            extra={"reason": reason, "suppressed": suppressed, **facts},
            stacklevel=3,
        )


def facts_of(error: BaseException) -> dict[str, str]:
    """Return the kind of *error* and where it was raised: what helps, and is nobody's data."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = "" if trace is None else f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
    return {"failure": type(error).__name__, "place": place}
