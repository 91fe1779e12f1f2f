"""What is kept of an event that was refused: as JSON text, without what its project denies. Pure.

Nothing is known of its form: it was refused. What can be found of the members that the privacy
settings mean is treated as in an event that is stored; what is no event at all, or was cut, is
searched for everything that could be personal.
"""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any, Final

import orjson

from analytics_collector.ingest.enrich.address import kept_address
from analytics_collector.ingest.enrich.scrub import Scrubber
from analytics_collector.ingest.enrich.urls import clean_page, clean_properties
from analytics_collector.model import EventRow
from analytics_collector.project_settings import Privacy
from analytics_collector.wire import wire_time

MAX_PAYLOAD_BYTES: Final = 100 * 1_024
MAX_FRAGMENT_BYTES: Final = 2 * 1_024

# Stored events keep these as they are.
_PLAIN_MEMBERS: Final = frozenset(
    {
        *("type", "messageId", "name", "timestamp"),
        *("userId", "anonymousId", "sessionId", "groupId", "previousId"),
    }
)
_ADDRESS: Final = re.compile(
    r"(?<![\w.])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![\w.])"
    r"|(?<![\w:])(?:[0-9A-Fa-f]{0,4}:){3,7}[0-9A-Fa-f]{0,4}(?![\w:])"
)
_QUERY: Final = re.compile(r"[?#][^\s\"'<>\\]+")
_MAX_TEXT_CHARS: Final = 255
_ALL_KINDS: Final = ("email", "card", "token")


def storable(text: str | None) -> str | None:
    """Return *text* as a column can hold it."""
    if text is None:
        return None
    return text[:_MAX_TEXT_CHARS].replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def facts_of(event: Any) -> tuple[str | None, str | None]:
    """Return the name and the message id of an event, as far as it has them."""
    if not isinstance(event, dict):
        return None, None
    name, message_id = event.get("name"), event.get("messageId")
    return (
        storable(name) if isinstance(name, str) and name else None,
        storable(message_id) if isinstance(message_id, str) else None,
    )


def event_of(row: EventRow) -> dict[str, Any]:
    """Return an event that would be stored as *row* is, as far as a client can say it.

    What was worked out is not in it: it is worked out again.
    """
    said = {
        "type": row.type,
        "messageId": row.message_id,
        "name": None if row.name == f"${row.type}" else row.name,
        "userId": row.user_id,
        "anonymousId": row.anonymous_id,
        "sessionId": row.session_id,
        "groupId": row.group_id,
        "previousId": row.previous_id,
        "timestamp": wire_time(row.timestamp),
        "properties": orjson.loads(row.properties),
        "traits": row.traits and orjson.loads(row.traits),
        "context": orjson.loads(row.context),
    }
    extra: dict[str, Any] = orjson.loads(row.extra or "{}")
    return extra | {name: value for name, value in said.items() if value is not None}


def written(event: Any) -> tuple[str, bool]:
    """Return *event*, as the decoder made it, as JSON text, and whether that is all of it.

    If it is, the text reads as the same event. Otherwise (a number that was out of range, too many
    levels, too large) it is the beginning of it, for `fragment`.
    """
    text = _to_json(event)
    if text is None:
        return _readable(event), False
    if len(text) > MAX_PAYLOAD_BYTES or len(text.encode()) > MAX_PAYLOAD_BYTES:
        return text[:MAX_FRAGMENT_BYTES], False
    return text, True


def scrubbed(text: str, privacy: Privacy, secret: bytes, at: datetime) -> str | None:
    """Return the JSON *text* of an event without what *privacy* does not let be stored.

    None if that can't be taken out of it. *secret* and *at* are those that addresses are hashed
    with; see `enrich.address`.
    """
    try:
        event = json.loads(text)
        return _to_json(_scrubbed(event, privacy, secret, at))
    except (TypeError, ValueError, RecursionError):
        return None  # a lone surrogate, or too many levels, where patterns are to be found


def _scrubbed(event: Any, privacy: Privacy, secret: bytes, at: datetime) -> Any:
    scrubber = Scrubber(privacy.deny_properties, privacy.scrub)
    if not isinstance(event, dict):
        return _clean(scrubber, event)
    kept: dict[str, Any] = {}
    for name, value in event.items():
        if name in _PLAIN_MEMBERS and not isinstance(value, dict | list):
            kept[name] = value
        elif name in _SECTIONS or name in _PLAIN_MEMBERS:
            # A member that the specification names is no property, whatever one is called.
            if name == "context" and isinstance(value, dict):
                value = _clean_context(value, privacy, secret, at)
            elif name == "properties" and isinstance(value, dict):
                value = clean_properties(value, privacy.url_query)
            kept[name] = _clean(scrubber, value)
        else:
            kept |= _clean(scrubber, {name: value})
    return kept


def _clean(scrubber: Scrubber, value: Any) -> Any:
    if not scrubber:
        return value
    return orjson.loads(scrubber.clean(orjson.dumps(value).decode()))


def _to_json(event: Any) -> str | None:
    try:
        return orjson.dumps(event).decode()
    except TypeError:  # a lone surrogate, a number out of range, too many levels
        try:
            return json.dumps(event, separators=(",", ":"), allow_nan=False)
        except (TypeError, ValueError, RecursionError):
            return None


def _readable(event: Any) -> str:
    try:
        return json.dumps(event, default=lambda _: "[out of range]")[:MAX_FRAGMENT_BYTES]
    except RecursionError:
        return ""


def fragment(text: str, privacy: Privacy) -> str:
    """Return a JSON string with the beginning of *text*, without anything that looks personal.

    *text* must have no lone surrogates.
    """
    if privacy.deny_properties:
        return '""'  # where a member begins and ends can't be told
    text = orjson.dumps(text[:MAX_FRAGMENT_BYTES]).decode()
    text = Scrubber((), _ALL_KINDS).clean(text)
    if privacy.url_query != "keep":
        text = _QUERY.sub("?[scrubbed]", text)
    if privacy.ip != "full":
        text = _ADDRESS.sub("[ip]", text)
    return text


_SECTIONS: Final = frozenset(("properties", "traits", "context"))


def _clean_context(
    context: dict[str, Any], privacy: Privacy, secret: bytes, at: datetime
) -> dict[str, Any]:
    cleaned = dict(context)
    if "page" in context:
        cleaned["page"] = clean_page(context["page"], privacy.url_query)
    ip = context.get("ip")
    if isinstance(ip, str) and ip and (address := kept_address(ip, privacy.ip, secret, at)):
        cleaned["ip"] = address
    elif ip and privacy.ip != "full":
        del cleaned["ip"]
    return cleaned
