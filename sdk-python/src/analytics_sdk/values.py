"""Make JSON of whatever a user tracks, and never fail over it.

The fast path is one `orjson.dumps`. Only when that refuses is the event copied into plain JSON
types, value by value; what had to be mended is named by kind:

    text        had no JSON form, became `str(value)`
    bytes       decoded as UTF-8
    key         a key that was no string
    integer     beyond 64 bits, became a string
    surrogate   half a surrogate pair, became U+FFFD
    cycle       contains itself, became null
    hostile     raised when it was looked at, became null
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence, Set
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from itertools import islice
from math import isfinite
from typing import Any, Final
from uuid import UUID

import orjson

from analytics_sdk._limits import MAX_DEPTH, MAX_EVENT_BYTES, MAX_INTEGER, MIN_INTEGER
from analytics_sdk.errors import MisuseError, call_user_code

# orjson 3.13 takes the process down with it (segmentation fault) when a tzinfo raises, or when a
# dataclass with slots misses one: both go the slow way. OPT_NON_STR_KEYS is left out, for it makes
# the usual case, all keys strings, slower.
OPTIONS: Final = (
    orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS
)

TOO_DEEP: Final = f"nest at most {MAX_DEPTH} levels, the event itself included."
TOO_LARGE: Final = f"an event may have {MAX_EVENT_BYTES} bytes of JSON; send less with it."


def encode(event: dict[str, Any]) -> tuple[bytes, Sequence[str]]:
    """
    Return *event* as JSON and what was mended, a word for each value.

    Raises MisuseError if it is too large or too deep for the wire.
    """
    mended: Sequence[str] = ()
    # No `default` hook: it would run foreign code while orjson walks the user's dict.
    try:
        encoded = orjson.dumps(event, option=OPTIONS)
    except TypeError:
        mender = _Mender()
        encoded = orjson.dumps(mender.mend(event, 1), option=OPTIONS)
        mended = mender.mended
    if len(encoded) > MAX_EVENT_BYTES:
        raise MisuseError("event_too_large", TOO_LARGE)
    # Each level opens a bracket, so few brackets mean few levels: enough for nearly all events.
    if encoded.count(b"{") + encoded.count(b"[") > MAX_DEPTH and _depth(encoded) > MAX_DEPTH:
        raise MisuseError("too_deep", TOO_DEEP)
    return encoded, mended


def is_unicode(text: str) -> bool:
    """Tell whether *text* can be encoded: it has no half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _depth(encoded: bytes) -> int:
    """Return how many levels the document has."""
    levels, values = 0, [orjson.loads(encoded)]
    while containers := [value for value in values if isinstance(value, (dict, list))]:
        levels += 1
        values = [inner for outer in containers for inner in _children(outer)]
    return levels


def _children(container: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return container.values() if isinstance(container, dict) else container


@dataclasses.dataclass(frozen=True, slots=True)
class _Items:
    """The items of a mapping, copied, before their keys are made strings."""

    pairs: list[tuple[Any, Any]]


class _Mender:
    """Copy a value into the dicts, lists, strings and numbers of JSON."""

    def __init__(self) -> None:
        self.mended: list[str] = []
        self._path: set[int] = set()
        # A value takes a byte at least, so more of them can't fit; and a list that holds ten times
        # a list that holds ten times a list, and so on, must not keep us for ever.
        self._values_left = MAX_EVENT_BYTES

    def mend(self, value: Any, level: int) -> Any:
        """Return the plain copy of *value*, which would stand on *level* if it is a container."""
        self._values_left -= 1
        if self._values_left < 0:
            raise MisuseError("event_too_large", TOO_LARGE)
        kind = type(value)
        if value is None or kind is bool or kind is float:
            return value
        if kind is str:
            return self._text(value)
        if kind is int:
            return self._integer(value)
        if id(value) in self._path:
            self.mended.append("cycle")
            return None
        self._path.add(id(value))
        try:
            return self._foreign(value, level)
        finally:
            self._path.discard(id(value))

    def _foreign(self, value: Any, level: int) -> Any:
        found, error = call_user_code(_open, value)
        if found is None or error is not None:
            self.mended.append("hostile")
            return None
        content, mended = found
        if mended is not None:
            self.mended.append(mended)
        if not isinstance(content, (list, _Items)):
            return self.mend(content, level)
        if level > MAX_DEPTH:
            raise MisuseError("too_deep", TOO_DEEP)
        if isinstance(content, list):
            return [self.mend(inner, level + 1) for inner in content]
        return {self._key(key): self.mend(inner, level + 1) for key, inner in content.pairs}

    def _key(self, key: Any) -> str:
        if type(key) is str:
            return self._text(key)
        if isinstance(key, str):
            return self._text(str.__str__(key))
        self.mended.append("key")
        # As JavaScript and `json.dumps` would write them.
        if key is None or isinstance(key, bool):
            return {None: "null", True: "true", False: "false"}[key]
        if isinstance(key, (int, float, Enum, UUID, date, bytes)):
            content, _ = call_user_code(_open, key)
            key = content[0] if content is not None else key
        text, _ = call_user_code(_string, key)
        return self._text(text if text is not None else type(key).__name__)

    def _text(self, text: str) -> str:
        if text.isascii() or is_unicode(text):
            return text
        self.mended.append("surrogate")
        # By way of UTF-16, so that two halves that belong together become their character.
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")

    def _integer(self, number: int) -> int | str:
        if MIN_INTEGER <= number <= MAX_INTEGER:
            return number
        self.mended.append("integer")
        # Hexadecimal, since Python refuses to write out more than 4,300 decimal digits.
        return str(number) if number.bit_length() <= 4096 else hex(number)


def _open(value: Any) -> tuple[Any, str | None]:  # noqa: C901, PLR0911, PLR0912
    """
    Return what *value* holds, one level deep, and the word for it if that is a makeshift.

    Runs methods of foreign objects, which may raise anything. Copies with C code where there is
    some, because other threads may change the original meanwhile.
    """
    match value:
        # Subclasses of the plain types: their content, not what their methods say.
        case str():
            return str.__str__(value), None
        case Enum():
            return value.value, None
        case int():
            return int.__index__(value), None
        case float():
            return float.__float__(value), None
        case dict():
            return _Items(list(dict.items(value))), None
        case list() | tuple() | set() | frozenset():
            return list(value), None
        case datetime() if value.utcoffset() == timedelta(0):
            return value.replace(tzinfo=None).isoformat() + "Z", None
        case date() | time():
            return value.isoformat(), None
        case UUID():
            return str(value), None
        case Decimal():
            return _decimal(value), None
        case bytes() | bytearray() | memoryview():
            return bytes(value).decode("utf-8", "replace"), "bytes"
        case Mapping():
            return _Items(list(islice(value.items(), MAX_EVENT_BYTES))), None
        case Sequence() | Set():
            # Bounded, for `range(10**12)` is a Sequence too.
            return list(islice(value, MAX_EVENT_BYTES)), None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return _Items([(field.name, getattr(value, field.name)) for field in fields]), None
    # A package that is not imported has no values here, so it need not be.
    if type(value).__module__ == "numpy":
        return value.tolist(), None
    return _string(value), "text"


def _string(value: Any) -> str:
    # `__str__` may return a subclass of str with methods of its own.
    return str.__str__(str(value))


def _decimal(number: Decimal) -> float | str | None:
    """Return the float that is written like *number*, else its digits; null if it is not finite."""
    if not number.is_finite():
        return None
    as_float = float(number)
    if isfinite(as_float) and Decimal(repr(as_float)) == number:
        return as_float
    return str(number)
