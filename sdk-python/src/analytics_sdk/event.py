"""Build one event: from the arguments of a call to the bytes that go on the wire.

Pure but for the clock and the random bytes of the message id. The bytes are the snapshot: what
the caller changes later does not show.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timezone
from enum import Enum
from functools import lru_cache
from os import urandom
from time import gmtime, strftime, time_ns
from typing import Any, Final
from uuid import UUID
from zlib import crc32

from analytics_sdk._limits import MAX_IDENTIFIER_CHARS, MAX_NAME_CHARS, MIN_TIMESTAMP_YEAR
from analytics_sdk.errors import MisuseError, call_user_code
from analytics_sdk.values import is_unicode
from analytics_sdk.version import __version__

# How many message ids are prepared at once.
TAILS: Final = 512
# How many names are remembered as good.
MANY_NAMES: Final = 1000

LIBRARY: Final = {"name": "analytics-sdk-python", "version": __version__}
CONTEXT: Final = {"library": LIBRARY}

CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f]")
MESSAGE_ID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
NO_TEXT = re.compile(r"<.* at 0x[0-9a-f]+>$")
NIL_OR_MAX = re.compile(r"[0-]+|[fF-]+")


# What str() of them gives is no identifier, but a slip such as `user_id=user.ids`.
NOT_IDENTIFIERS = (bool, bytes, bytearray, Mapping, list, tuple, set, frozenset)


def build(
    kind: str,
    name: Any = None,
    properties: Any = None,
    traits: Any = None,
    user_id: Any = None,
    anonymous_id: Any = None,
    session_id: Any = None,
    group_id: Any = None,
    previous_id: Any = None,
    timestamp: Any = None,
    context: Any = None,
    message_id: Any = None,
) -> dict[str, Any]:
    """
    Return the event as the wire names its members; what is None is left out.

    Raises MisuseError when the collector would refuse the event.
    """
    start_of_id, now = moment(time_ns() // 1_000_000)
    event: dict[str, Any] = {
        "type": kind,
        "messageId": (
            start_of_id + new_tail() if message_id is None else checked_message_id(message_id)
        ),
        "timestamp": now if timestamp is None else checked_timestamp(timestamp),
    }
    # What most calls have is looked at here; to call a function for each would double the cost.
    if name.__class__ is str and name in good_names:
        event["name"] = name
    elif name is not None or kind == "track":
        event["name"] = checked_name(name)
    if user_id.__class__ is str and user_id.isprintable() and len(user_id) <= MAX_IDENTIFIER_CHARS:
        event["userId"] = user_id
    elif user_id is not None:
        event["userId"] = identifier(user_id)
    if not (anonymous_id is session_id is group_id is previous_id is None):
        ids = {"anonymousId": anonymous_id, "sessionId": session_id}
        ids |= {"groupId": group_id, "previousId": previous_id}
        event |= {member: identifier(value) for member, value in ids.items() if value is not None}
    if properties.__class__ is dict:
        event["properties"] = properties
    elif properties is not None:
        event["properties"] = checked_mapping(properties, "properties")
    if traits is not None:
        event["traits"] = checked_mapping(traits, "traits")
    if context is None:
        event["context"] = CONTEXT
    else:
        event["context"] = {**checked_mapping(context, "context"), **CONTEXT}
    if kind != "track":
        _check_identity(kind, event)
    return event


def _check_identity(kind: str, event: dict[str, Any]) -> None:
    if kind in ("identify", "alias") and not event.get("userId"):
        raise MisuseError("missing_identity", f"{kind}() needs a user_id.")
    if kind == "group" and not event.get("groupId"):
        raise MisuseError("missing_identity", "group() needs a group_id.")


# Writing them is slow, and a burst has many events to the millisecond.
@lru_cache(maxsize=2)
def moment(milliseconds: int) -> tuple[str, str]:
    """Return the start of the ids of that millisecond since 1970, and it as the wire has times."""
    hexadecimal = f"{milliseconds:012x}"
    seconds, rest = divmod(milliseconds, 1000)
    timestamp = f"{strftime('%Y-%m-%dT%H:%M:%S', gmtime(seconds))}.{rest:03d}Z"
    return f"{hexadecimal[:8]}-{hexadecimal[8:]}-7", timestamp


# The kernel's random bytes, because a forked child repeats those of a generator in memory. Asked
# for in advance, for that is a system call; so a child forgets what its parent had asked for.
random_tails: list[str] = []


def new_tail() -> str:
    """Return the rest of a new UUIDv7 (RFC 9562): its 72 random bits and its variant.

    Of the four digits that may stand for the variant it is always 8. The start is the time, so
    that an index of message ids grows at its end.
    """
    try:
        return random_tails.pop()
    except IndexError:
        noise = urandom(9 * TAILS).hex()
    tails = [noise[at : at + 18] for at in range(0, len(noise), 18)]
    random_tails.extend(f"{tail[:3]}-8{tail[3:6]}-{tail[6:]}" for tail in tails[1:])
    return f"{tails[0][:3]}-8{tails[0][3:6]}-{tails[0][6:]}"


def checked_message_id(message_id: Any) -> str:
    """Return the caller's own id, a UUID object or its canonical text."""
    text = str(message_id) if isinstance(message_id, UUID) else message_id
    if isinstance(text, str) and MESSAGE_ID.fullmatch(text) and not NIL_OR_MAX.fullmatch(text):
        return text
    raise MisuseError("invalid_message_id", "message_id must be a UUID, neither nil nor max.")


def checked_timestamp(timestamp: Any) -> str:
    """Return the caller's time as the wire has it; one without an offset is local time."""
    if isinstance(timestamp, datetime):
        # Its zone may raise, and the years 1 and 9999 have no neighbours for an offset.
        moment, _ = call_user_code(timestamp.astimezone, timezone.utc)
        if moment is not None and moment.year >= MIN_TIMESTAMP_YEAR:
            return moment.isoformat()[: -len("+00:00")] + "Z"
    raise MisuseError("invalid_timestamp", "timestamp must be a datetime since 1970.")


# Names that were looked at before: a program has few, and uses them often.
good_names: set[str] = set()


def checked_name(name: Any) -> str:
    """Return the name of an event."""
    if not isinstance(name, str) and isinstance(name, Enum):
        name = name.value
    if not isinstance(name, str) or not name:
        raise MisuseError("missing_name", "the name must be a string of 1 to 255 characters.")
    if len(name) > MAX_NAME_CHARS or not (name.isprintable() or _is_clean(name)):
        raise MisuseError(
            "invalid_name", "the name may have 255 characters and no control characters."
        )
    if type(name) is str and len(good_names) < MANY_NAMES:
        good_names.add(name)
    return name


def _is_clean(name: str) -> bool:
    return not CONTROL_CHARACTER.search(name) and is_unicode(name)


def identifier(value: Any) -> str:
    """Return *value* as the wire has identifiers: 1 and "1" are the same user."""
    if not isinstance(value, str):
        text = None
        if not isinstance(value, NOT_IDENTIFIERS):
            text, _ = call_user_code(str, value.value if isinstance(value, Enum) else value)
        # `<coroutine object current_user at 0x7f...>` is nobody either.
        if text is None or NO_TEXT.match(text):
            raise MisuseError("invalid_identifier", "an identifier must be a string or a number.")
        value = text
    if len(value) > MAX_IDENTIFIER_CHARS or not (
        (value.isascii() and "\0" not in value) or _is_storable(value)
    ):
        raise MisuseError(
            "invalid_identifier",
            "an identifier may have 255 characters, no NUL and no half of a surrogate pair.",
        )
    # Not str(value): a subclass may answer that as it likes.
    return str.__str__(value)


def _is_storable(text: str) -> bool:
    return "\0" not in text and is_unicode(text)


def checked_mapping(value: Any, argument: str) -> Any:
    """Return *value* if it is a dict or another mapping."""
    if type(value) is dict or isinstance(value, Mapping):
        return value
    raise MisuseError(f"invalid_{argument}", f"{argument} must be a dict.")


def is_sampled(event: Mapping[str, Any], rate: float) -> bool:
    """
    Tell whether the event belongs to the share *rate* of users.

    A user is in or out for good, whoever asks; an event without identity is on its own.
    """
    key = event.get("userId") or event.get("anonymousId") or event["messageId"]
    return crc32(str(key).encode()) < rate * 2**32
