"""Every error of the SDK, and the one guard round code that is not ours.

AnalyticsError
├── ConfigError       the settings are wrong; raised by `init()` and `Client()`
├── MisuseError           a call can't be turned into an event; only `debug=True` lets it out
└── EventRejectedError     the collector will not store an event; handed to `on_error`
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class AnalyticsError(Exception):
    """Any error of the analytics SDK."""


class ConfigError(AnalyticsError, ValueError):
    """The settings are wrong; correct each one that the message names."""

    def __init__(self, mistakes: Iterable[str]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__(" ".join(self.mistakes))


class MisuseError(AnalyticsError, ValueError):
    """An event method can't take this call; correct it as the message says.

    `reason` is the word that `stats().refused` counts it under.
    """

    def __init__(self, reason: str, advice: str) -> None:
        self.reason = reason
        super().__init__(f"{reason}: {advice}")


class EventRejectedError(AnalyticsError):
    """The collector refused an event for good; `code` and `advice` say what to change.

    `code` is one of spec/errors.json, `message_id` the event's id, `event` what was sent.
    """

    def __init__(self, code: str, advice: str, event: dict[str, Any]) -> None:
        self.code = code
        self.advice = advice
        self.event = event
        self.message_id = event.get("messageId")
        # The event stays out of the text: texts of exceptions end up in logs.
        super().__init__(f"{code}: {advice}")


def call_user_code(
    function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> tuple[T, None] | tuple[None, Exception]:
    """Call *function*, which may raise anything, and return its value or its exception.

    Hooks, and the methods of values that a user tracks, run inside the user's request or inside
    our only thread: neither may fall over them.
    """
    try:
        return function(*args, **kwargs), None
    except Exception as error:
        return None, error
