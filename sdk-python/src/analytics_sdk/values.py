"""Make JSON of whatever a user tracks, and never fail over it.

Dicts, lists, texts and numbers go straight to orjson. All else is copied into them first, so that
no code of others runs while orjson walks the user's dict. What it becomes:

    datetime                   ISO 8601; without an offset it is local time and gets the local one
    date, time                 ISO 8601
    timedelta                  seconds
    Decimal, Fraction          a number, if that is written like it, else text
    Enum                       its value
    UUID, path, IP address     text
    tuple, any other sequence  a list
    set                        a list, sorted, so that the same set always reads the same
    any mapping                a dict
    named tuple, dataclass     a dict of the fields; likewise what attrs, msgspec and pydantic make
                               (pydantic leaves out what the model excludes)
    numpy                      numbers and lists; a datetime64 is UTC, a timedelta64 seconds
    pandas                     a Series is a list, a DataFrame a list of rows; NA and NaT are null

What has no such form is mended, and the mending has a name:

    text        became `str(value)`; of an exception only the class, for its message may be private
    bytes       decoded as UTF-8
    key         a key that was no string
    collision   a key that was there already after such mending; the last value counts
    not_finite  NaN or infinite, became null
    integer     beyond 64 bits, became a string
    surrogate   half a surrogate pair, became U+FFFD
    cycle       contains itself, became null
    hostile     raised when it was looked at, became null

An iterator becomes text: to read it would take its values from the program.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import isfinite
from typing import Any, Final
from uuid import UUID

import orjson

from analytics_sdk._limits import MAX_DEPTH, MAX_EVENT_BYTES, MAX_INTEGER, MIN_INTEGER
from analytics_sdk.errors import MisuseError, call_user_code
from analytics_sdk.foreign import FAILED, MAX_VALUES, TOO_MUCH, opened, text_of

# A dict may change between our look and orjson's. Of what could come in then, orjson must not touch
# what runs code of others: 3.13 takes the process down when a tzinfo raises.
# OPT_NON_STR_KEYS is left out, for it makes the usual case, all keys strings, slower.
OPTIONS: Final = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS

TOO_DEEP: Final = f"nest at most {MAX_DEPTH} levels, the event itself included."
TOO_LARGE: Final = f"an event may have {MAX_EVENT_BYTES} bytes of JSON; send less with it."

# The members of an event that its user fills; `event.build()` makes checked strings of the others.
PARTS: Final = ("properties", "traits", "context")
# What orjson writes without running code of others, beside str, float, dict, list and tuple.
PLAIN: Final = frozenset({int, bool, type(None), UUID})
# What is copied as it stands; everything else is opened first.
COPIED: Final = frozenset({dict, list, tuple, set, frozenset})
# What opens into something to open, and so on, more often than this has no end.
MAX_OPEN: Final = 3 * MAX_DEPTH


def encode(event: dict[str, Any]) -> tuple[bytes, Sequence[str]]:
    """
    Return *event*, made by `event.build()`, as JSON, and what was mended, a word for each value.

    Raises MisuseError if it is too large or too deep for the wire.
    """
    try:
        size = 0
        if (properties := event.get("properties")) is not None:
            size = _least_size(properties, 2, 0)
        if (traits := event.get("traits")) is not None:
            size = _least_size(traits, 2, size)
        # A context of one member has the library's own.
        if len(context := event.get("context", ())) > 1:
            size = _least_size(context, 2, size)
        if size > MAX_EVENT_BYTES:
            raise _too_large()
        encoded = orjson.dumps(event, option=OPTIONS)
    # RuntimeError: another thread changed a dict while we looked at it.
    except (_NotPlain, TypeError, RuntimeError):
        mender = _Mender()
        mended = event.copy()
        for name in PARTS:
            if (part := event.get(name)) is not None:
                mended[name] = mender.mend(part, 2)
        return _written(mended), mender.mended
    if len(encoded) > MAX_EVENT_BYTES:
        raise _too_large()
    return encoded, ()


def encode_foreign(event: dict[str, Any]) -> tuple[bytes, Sequence[str]]:
    """Do what `encode()` does with an event of which every member may be anything."""
    mender = _Mender()
    return _written(mender.mend(event, 1)), mender.mended


def is_unicode(text: str) -> bool:
    """Tell whether *text* can be encoded: it has no half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _written(event: dict[str, Any]) -> bytes:
    encoded = orjson.dumps(event, option=OPTIONS)
    if len(encoded) > MAX_EVENT_BYTES:
        raise _too_large()
    return encoded


def _too_large() -> MisuseError:
    return MisuseError("event_too_large", TOO_LARGE)


class _NotPlain(Exception):
    """There is a value that must not go to orjson as it is."""


def _least_size(container: Any, level: int, size: int) -> int:
    """
    Return *size* and the bytes that *container*, which stands on *level*, takes at the least.

    To look costs about what orjson costs. It keeps a list of ten million values, or a small one
    whose items are all the same list of lists, from keeping the caller.
    """
    kind = type(container)
    if kind is dict:
        values: Collection[Any] = container.values()
    elif kind is list or kind is tuple:
        values = container
    else:
        raise _NotPlain
    size += 2 * len(values)
    if size > MAX_EVENT_BYTES:
        raise _too_large()
    for value in values:
        kind = type(value)
        if kind is str:
            size += len(value)
        elif kind is float:
            # Infinite less infinite is NaN.
            if value - value != 0:
                raise _NotPlain
        elif kind not in PLAIN:
            # Too deep, or a cycle.
            if level == MAX_DEPTH:
                raise _NotPlain
            size = _least_size(value, level + 1, size)
    return size


class _Mender:
    """Copy a value into the dicts, lists, strings and numbers of JSON."""

    def __init__(self) -> None:
        self.mended: list[str] = []
        self._path: set[int] = set()
        # Ten times a list that holds ten times a list, and so on, must not keep us for ever.
        self._room = MAX_EVENT_BYTES + 1

    def mend(self, value: Any, level: int) -> Any:
        """Return the plain copy of *value*, which would stand on *level* if it is a container."""
        self._room -= 2
        kind = type(value)
        if kind is str:
            return self._text(value)
        if kind is int:
            return self._integer(value)
        if kind is float:
            return value if isfinite(value) else self._null("not_finite")
        if kind is bool or value is None:
            return value
        if id(value) in self._path:
            return self._null("cycle")
        self._path.add(id(value))
        try:
            return self._container(value, level)
        finally:
            self._path.discard(id(value))

    def _container(self, value: Any, level: int) -> Any:
        kind = type(value)
        if kind not in COPIED:
            return self._foreign(value, level)
        if level > MAX_DEPTH:
            raise MisuseError("too_deep", TOO_DEEP)
        if len(value) > MAX_VALUES or self._room < 0:
            raise _too_large()
        # Copied by C code in one go, because other threads may change the original meanwhile.
        if kind is dict:
            return self._object(value.copy(), level)
        items = [self.mend(item, level + 1) for item in list(value)]
        return sorted(items, key=_rank) if kind in (set, frozenset) else items

    def _foreign(self, value: Any, level: int) -> Any:
        if value is FAILED or len(self._path) > MAX_OPEN:
            return self._null("hostile")
        found, _ = call_user_code(opened, value)
        if found is None:
            return self._null("hostile")
        content, word = found
        if content is TOO_MUCH:
            raise _too_large()
        if word is not None:
            self.mended.append(word)
        return self.mend(content, level)

    def _object(self, content: dict[Any, Any], level: int) -> dict[str, Any]:
        mended = {}
        for key, item in content.items():
            name = self._text(key) if type(key) is str else self._key(key)
            mended[name] = self.mend(item, level + 1)
        self.mended.extend(["collision"] * (len(content) - len(mended)))
        return mended

    def _key(self, key: Any) -> str:
        if isinstance(key, str):
            return self._text(str.__str__(key))
        self.mended.append("key")
        # As JavaScript and `json.dumps` would write them.
        if key is None or isinstance(key, bool):
            return {None: "null", True: "true", False: "false"}[key]
        found, _ = call_user_code(opened, key)
        if found is not None and isinstance(found[0], (str, int, float)):
            key = found[0]
        text, _ = call_user_code(text_of, key)
        return self._text(text if text is not None else type(key).__name__)

    def _text(self, text: str) -> str:
        self._room -= len(text)
        if self._room < 0:
            raise _too_large()
        if text.isascii() or is_unicode(text):
            return text
        self.mended.append("surrogate")
        # By way of UTF-16, so that two halves that belong together become their character.
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")

    def _integer(self, number: int) -> int | str:
        if MIN_INTEGER <= number <= MAX_INTEGER:
            return number
        self.mended.append("integer")
        # Python may refuse to write out more than 640 decimal digits, and takes long for many.
        if number.bit_length() <= 2048:
            return str(number)
        if number.bit_length() > 4 * MAX_EVENT_BYTES:
            raise _too_large()
        return hex(number)

    def _null(self, word: str) -> None:
        self.mended.append(word)


def _rank(value: Any) -> tuple[int, Any]:
    """Return where plain *value* stands in a sorted set: numbers, then texts, then the rest."""
    if isinstance(value, (int, float)):
        return 0, value
    return (1, value) if isinstance(value, str) else (2, orjson.dumps(value))
