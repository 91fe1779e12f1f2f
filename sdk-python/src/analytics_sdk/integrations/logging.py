"""A handler of `logging` that makes an event of each record, for those who ask for one.

    logging.getLogger().addHandler(AnalyticsHandler())

The event has the message as the program wrote it, `"order %s failed"`, not the one with the
arguments filled in, which may be anybody's data. Of an object that is logged in place of a text,
such as an exception, it has the name of the class. (An f-string is filled in before anybody can
see it: log with arguments.) `extra={"analytics": {...}}` adds properties to the event of a record.

Records of the SDK itself, and all that are logged while it sends, make no events, which would make
records in turn.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from datetime import datetime, timezone
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import analytics_sdk
from analytics_sdk.errors import AnalyticsError, call_user_code
from analytics_sdk.process import restart_after_fork

if TYPE_CHECKING:
    from analytics_sdk.client import Client

OURS: Final = "analytics_sdk"
# The one that sends, with loggers of httpx and httpcore and with hooks of the user.
THREAD: Final = "analytics-sdk"

MAX_MESSAGE_CHARS: Final = 2048
# So many are told apart in one interval; all others share a place.
MAX_TEMPLATES: Final = 1000

_is_tracking: ContextVar[bool] = ContextVar("analytics_sdk_is_tracking", default=False)


class AnalyticsHandler(logging.Handler):
    """
    Track an event called *event_name* for each record of *level* and above.

    Its properties are `logger`, `level`, `message`, `module`, `function` and `line`, with
    `errorType` if the record has an exception. Of one message at most *max_per_interval* make
    events in *interval_s*; `suppressed` of the next one says how many records made none before.
    With *formatted* the arguments are filled in. Without *client* the default client of the moment
    is used.

    An error in here ends up in `handleError()`, as with all handlers, never in the program.
    """

    def __init__(
        self,
        level: int | str = logging.ERROR,
        *,
        client: Client | None = None,
        event_name: str = "log_recorded",
        formatted: bool = False,
        max_per_interval: int = 100,
        interval_s: float = 60.0,
    ) -> None:
        super().__init__(level)
        self._client = client
        self._event_name = event_name
        self._formatted = formatted
        self._limit = _Limit(max_per_interval, interval_s)

    def handle(self, record: logging.LogRecord) -> bool:
        """
        Do what handlers do, but hold no lock meanwhile.

        A hook of the user that is asked when the event is tracked may wait for another thread, and
        that one may log.
        """
        passed = self.filter(record)
        if passed:
            self.emit(passed if isinstance(passed, logging.LogRecord) else record)
        return bool(passed)

    def emit(self, record: logging.LogRecord) -> None:
        """Track the event of *record*, unless tracking is what made the record."""
        if _is_tracking.get() or _is_about_us(record):
            return
        token = _is_tracking.set(True)
        try:
            self._track(record)
        except AnalyticsError:
            # Misuse, which a client with `debug=True` raises.
            self.handleError(record)
        finally:
            _is_tracking.reset(token)

    def _track(self, record: logging.LogRecord) -> None:
        message = _template_of(record.msg)
        suppressed = self._limit.admit(message)
        if suppressed is None:
            return
        if self._formatted:
            filled_in, _ = call_user_code(record.getMessage)
            # Arguments that don't fit are a mistake in the program; the template is left of it.
            message = message if filled_in is None else filled_in[:MAX_MESSAGE_CHARS]
        tracker = analytics_sdk if self._client is None else self._client
        recorded_at, _ = call_user_code(datetime.fromtimestamp, record.created, timezone.utc)
        tracker.track(
            self._event_name,
            _facts(record, message, suppressed),
            timestamp=recorded_at,
            context={"category": "SYSTEM_EVENT"},
        )


def _is_about_us(record: logging.LogRecord) -> bool:
    thread = record.threadName or threading.current_thread().name
    return thread == THREAD or f"{record.name}.".startswith(f"{OURS}.")


def _template_of(message: object) -> str:
    if isinstance(message, str):
        return str.__str__(message)[:MAX_MESSAGE_CHARS]
    return type(message).__name__


def _facts(record: logging.LogRecord, message: str, suppressed: int) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "logger": record.name,
        "level": record.levelname,
        "message": message,
        "module": record.module,
        "function": record.funcName,
        "line": record.lineno,
    }
    if record.exc_info and record.exc_info[0] is not None:
        facts["errorType"] = record.exc_info[0].__name__
    elif isinstance(record.msg, BaseException):
        facts["errorType"] = type(record.msg).__name__
    if suppressed:
        facts["suppressed"] = suppressed
    added = getattr(record, "analytics", None)
    if isinstance(added, Mapping):
        copied, _ = call_user_code(dict, added)
        facts |= copied or {}
    return facts


class _Limit:
    """Admit so many of each template in an interval, and count the others."""

    def __init__(
        self, maximum: int, interval_s: float, clock: Callable[[], float] = monotonic
    ) -> None:
        self._maximum = maximum
        self._interval_s = interval_s
        self._clock = clock
        self.start_afresh()
        restart_after_fork(self)

    def start_afresh(self) -> None:
        """Count anew in a forked child, where a thread that is gone may have held the lock."""
        # Re-entrant, for a signal handler or a `__del__` that logs.
        self._lock = threading.RLock()
        self._until = 0.0
        self._admitted: dict[str, int] = {}
        self._suppressed: dict[str, int] = {}

    def admit(self, template: str) -> int | None:
        """Return how many were suppressed since the last one; None if this one is, too."""
        with self._lock:
            if (now := self._clock()) >= self._until:
                self._until = now + self._interval_s
                self._admitted.clear()
            place = _place(self._admitted, template)
            if self._admitted.get(place, 0) < self._maximum:
                self._admitted[place] = self._admitted.get(place, 0) + 1
                return self._suppressed.pop(place, 0)
            place = _place(self._suppressed, place)
            self._suppressed[place] = self._suppressed.get(place, 0) + 1
            return None


def _place(counts: dict[str, int], template: str) -> str:
    """Return where *template* is counted: with others, when there are too many to tell apart."""
    return template if template in counts or len(counts) < MAX_TEMPLATES else ""
