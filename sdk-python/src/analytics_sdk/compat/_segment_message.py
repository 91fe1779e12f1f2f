"""The messages of Segment's library: what it adds to them, and what they are as calls of ours."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any, Final
from uuid import UUID, uuid5

from analytics_sdk.errors import MisuseError
from analytics_sdk.event import LIBRARY, build, checked_message_id, identifier

MESSAGE_ID_NAMESPACE: Final = UUID("5488cd9f-e124-413c-92b3-d36550c63921")
"""A message id that is no UUID becomes `uuid5(MESSAGE_ID_NAMESPACE, str(message_id))`."""

# Segment takes a time without an offset for local if it is no older, and for UTC else.
LOCAL_IF_WITHIN = timedelta(seconds=5)

# What a message of Segment's calls its members, and how our event methods call the same.
ARGUMENTS: Final = {
    "userId": "user_id",
    "anonymousId": "anonymous_id",
    "groupId": "group_id",
    "previousId": "previous_id",
    "event": "name",
    "name": "name",
    "properties": "properties",
    "traits": "traits",
    "context": "context",
    "timestamp": "timestamp",
    "messageId": "message_id",
}


def translate(message: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return *message* as Segment's library finishes it, and the arguments of our event method.

    Touches what the caller tracks, which may raise anything.
    """
    finished = _finished(message)
    given = renamed(finished)
    if finished["integrations"]:
        given["context"] = {**finished["context"], "integrations": finished["integrations"]}
    if "category" in finished:
        given["name"] = finished["name"] or None
        if finished["category"]:
            given["properties"] = {**finished["properties"], "category": finished["category"]}
    return finished, given


def renamed(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return those members of *message* that our event methods take, under their names."""
    return {ARGUMENTS[name]: value for name, value in message.items() if name in ARGUMENTS}


def _finished(message: Mapping[str, Any]) -> dict[str, Any]:
    finished = dict(message)
    for member in ("userId", "anonymousId"):
        if finished[member] is not None:
            finished[member] = identifier(finished[member])
    for member in ("properties", "traits", "context", "integrations"):
        if member in finished:
            finished[member] = {**(finished[member] or {})}
    finished["context"]["library"] = dict(LIBRARY)
    finished["timestamp"] = _with_zone(finished["timestamp"])
    finished["messageId"] = _message_id(finished["messageId"])
    return finished


def _with_zone(timestamp: Any) -> Any:
    """Return the time with a zone: its own, or the one that Segment's library guesses."""
    now = datetime.now(timezone.utc)
    if timestamp is None:
        return now
    if not isinstance(timestamp, datetime) or timestamp.utcoffset() is not None:
        return timestamp
    local = timestamp.astimezone()
    return local if now - local < LOCAL_IF_WITHIN else timestamp.replace(tzinfo=timezone.utc)


def _message_id(message_id: Any) -> str:
    """Return a UUID: a new one, the caller's, or the one that stands for the caller's text."""
    if message_id is None:
        return str(build("page")["messageId"])
    try:
        return checked_message_id(message_id)
    except MisuseError:
        return str(uuid5(MESSAGE_ID_NAMESPACE, str(message_id)))
