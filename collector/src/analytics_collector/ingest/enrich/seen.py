"""What the context of an event says, read once for all steps. Pure, and never surprised.

The specification lets members be null, the page be a string, and anything stand where it names
no type; what is not of the expected form counts as not said.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import orjson

from analytics_collector.model import Sender

_MAX_FACT_CHARS: Final = 255
_NOTHING: Final[dict[str, Any]] = {}


class Seen(NamedTuple):
    """The parts of a context from which facts are worked out; empty where nothing is said."""

    user_agent: str
    ip: str
    timezone: str
    page: dict[str, Any] | None
    """As an object, also where the client sent its URL as a string; None if there is no page."""
    campaign: dict[str, Any]
    screen: dict[str, Any]


def read_context(context: dict[str, Any] | None, sender: Sender) -> Seen:
    """Return what *context* says; the address and user agent of *sender* where it says none."""
    get = (context or _NOTHING).get
    return Seen(
        text(get("userAgent")) or sender.user_agent or "",
        text(get("ip")) or sender.ip or "",
        text(get("timezone")),
        page_of(get("page")),
        members(get("campaign")),
        members(get("screen")),
    )


def page_of(page: Any) -> dict[str, Any] | None:
    """Return the page of a context as an object, or None."""
    if isinstance(page, str):
        return {"url": page} if page else None
    return page if isinstance(page, dict) and page else None


def text(value: Any) -> str:
    """Return *value* if it is text, else the empty text."""
    return value if isinstance(value, str) else ""


def members(value: Any) -> dict[str, Any]:
    """Return *value* if it is an object, else an empty one."""
    return value if isinstance(value, dict) else _NOTHING


def short(value: str) -> str:
    """Return *value* as a fact may hold it: not endless, and without what the store refuses."""
    return value[:_MAX_FACT_CHARS].replace("\0", "\ufffd")


def fact(value: Any) -> str:
    """Return *value* as JSON text."""
    return orjson.dumps(value).decode()
