"""Open a value that is no plain JSON, one level deep, without falling over it.

Knows the classes of the standard library and of some packages, which it does not import. What
becomes of each is told in `values`, which puts the plain copy together.
"""

from __future__ import annotations

import dataclasses
import re
from collections import UserString
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from itertools import islice
from math import prod
from typing import Any, Final, TypeAlias
from uuid import UUID

from analytics_sdk._limits import MAX_EVENT_BYTES
from analytics_sdk.errors import call_user_code

# A value takes two bytes of JSON at least, with its comma.
MAX_VALUES: Final = MAX_EVENT_BYTES // 2
# Each process has addresses of its own, and they would make a value of its own of each object.
ADDRESS: Final = re.compile(r" at 0x[0-9a-fA-F]+")

# In place of a content: that there is too much of it, that it raised, that it is not there.
TOO_MUCH: Final = object()
FAILED: Final = object()
MISSING: Final = object()

# What a value holds, and the word of `values` for it if that is a makeshift.
Opened: TypeAlias = tuple[Any, str | None]


def opened(value: Any) -> Opened:
    """
    Return what *value* holds: a list, set or dict that is ours, or something to open in turn.

    Runs methods of other people's classes: call it by `call_user_code()`.
    """
    classes = type(value).__mro__
    for base in classes:
        if base in OPENERS:
            return OPENERS[base](value)
    for base in classes:
        name = (str(base.__module__).partition(".")[0], base.__name__)
        if name in OPENERS_BY_NAME:
            return OPENERS_BY_NAME[name](value)
    return _of_unknown_class(value)


def _of_unknown_class(value: Any) -> Opened:
    # Bounded, for `range(10**12)` is a Sequence too.
    if isinstance(value, Mapping):
        return dict(islice(value.items(), MAX_VALUES + 1)), None
    if isinstance(value, (Sequence, Set)):
        return list(islice(value, MAX_VALUES + 1)), None
    kind = type(value)
    if dataclasses.is_dataclass(kind):
        return _fields(value, [field.name for field in dataclasses.fields(kind)]), None
    if (attributes := getattr(kind, "__attrs_attrs__", None)) is not None:
        return _fields(value, [attribute.name for attribute in attributes]), None
    return ADDRESS.sub("", text_of(value)), "text"


def text_of(value: Any) -> str:
    """Return `str(value)`, a true string even if `__str__` returns one with methods of its own."""
    return str.__str__(str(value))


def _fields(value: Any, names: Iterable[str]) -> dict[str, Any]:
    fields = {}
    for name in names:
        field, error = call_user_code(getattr, value, name, MISSING)
        if error is not None:
            fields[name] = FAILED
        # A slot that nobody filled is no field.
        elif field is not MISSING:
            fields[name] = field
    return fields


def _copied(value: Any, base: type[Collection[Any]], copy: Callable[[Any], Any]) -> Opened:
    """Open an instance of a subclass, whose own `__iter__` need not come to an end."""
    return (TOO_MUCH if base.__len__(value) > MAX_VALUES else copy(value)), None


def _tuple(value: tuple[Any, ...]) -> Opened:
    content = tuple.__getitem__(value, slice(None))
    names = getattr(type(value), "_fields", None)
    return (content if names is None else dict(zip(names, content, strict=False))), None


def _datetime(value: datetime) -> Opened:
    # pandas' NaT is one, and like NaN not itself.
    if value != value:  # noqa: PLR0124
        return None, None
    offset = value.utcoffset()
    if offset == timedelta(0):
        return value.replace(tzinfo=None).isoformat() + "Z", None
    if offset is not None:
        return value.isoformat(), None
    # A plain one, because subclasses have ideas of their own of astimezone().
    plain = datetime.combine(value.date(), value.time())
    # The years 1 and 9999 have no neighbours for an offset.
    local, _ = call_user_code(plain.astimezone)
    return (plain.isoformat(), None) if local is None else _datetime(local)


def _decimal(value: Decimal) -> Opened:
    return _exact(value) if value.is_finite() else (None, "not_finite")


def _exact(value: Any) -> Opened:
    """Open a Decimal or a Fraction: the float that is written like it, else its digits."""
    as_float, _ = call_user_code(float, value)
    if as_float is not None and Decimal(repr(as_float)) == value:
        return as_float, None
    return text_of(value), None


def _bytes(value: bytes | bytearray | memoryview) -> Opened:
    view = memoryview(value)
    if view.nbytes > MAX_EVENT_BYTES:
        return TOO_MUCH, None
    return view.tobytes().decode("utf-8", "replace"), "bytes"


def _numpy_scalar(value: Any) -> Opened:
    kind, content = value.dtype.kind, value.item()
    if kind == "f":
        # By way of its text, since a float32 of 0.1 is not 0.1 as a float.
        return float(str(value)), None
    if isinstance(content, datetime):
        return f"{content.isoformat()}Z", None
    if kind not in "Mm" or not isinstance(content, int):
        # Python has no word for some, and then item() returns the like.
        return (str(value), "text") if type(content) is type(value) else (content, None)
    # Nanoseconds, or a time that Python's classes have no room for.
    if kind == "M":
        return f"{value}Z", None
    # How long a month is nobody knows.
    seconds, _ = call_user_code(lambda: float(value / type(value)(1, "s")))
    return (str(value), "text") if seconds is None else (seconds, None)


def _numpy_array(value: Any) -> Opened:
    # Even an array without values may have a billion rows.
    if prod(length or 1 for length in value.shape) > MAX_VALUES:
        return TOO_MUCH, None
    # Of nanoseconds tolist() makes bare integers.
    if value.dtype.kind in "Mm":
        return (list(value) if value.ndim else value[()]), None
    return value.tolist(), None


def _pandas_column(value: Any) -> Opened:
    return (TOO_MUCH if len(value) > MAX_VALUES else value.tolist()), None


def _pandas_frame(value: Any) -> Opened:
    if value.size > MAX_VALUES:
        return TOO_MUCH, None
    names = list(value.columns)
    rows = value.itertuples(index=False, name=None)
    return [dict(zip(names, row, strict=True)) for row in rows], None


def _pydantic(value: Any) -> Opened:
    # By its own method, which masks and leaves out what the model says.
    if hasattr(type(value), "model_dump"):
        return value.model_dump(warnings=False), None
    return value.dict(), None


OPENERS: Final[dict[type, Callable[[Any], Opened]]] = {
    # Subclasses of the plain types: their content, not what their methods say.
    str: lambda value: (str.__str__(value), None),
    int: lambda value: (int.__index__(value), None),
    float: lambda value: (float.__float__(value), None),
    dict: lambda value: _copied(value, dict, lambda value: dict(dict.items(value))),
    list: lambda value: _copied(value, list, list.copy),
    tuple: _tuple,
    set: lambda value: _copied(value, set, set().union),
    frozenset: lambda value: _copied(value, frozenset, set().union),
    Enum: lambda value: (value.value, None),
    datetime: _datetime,
    date: lambda value: (value.isoformat(), None),
    time: lambda value: (value.isoformat(), None),
    timedelta: lambda value: (value.total_seconds(), None),
    UUID: lambda value: (str(value), None),
    Decimal: _decimal,
    bytes: _bytes,
    bytearray: _bytes,
    memoryview: _bytes,
    UserString: lambda value: (value.data, None),
    BaseException: lambda value: (type(value).__name__, "text"),
}
# By package and class: a package that is not imported has no values here, so it need not be.
OPENERS_BY_NAME: Final[dict[tuple[str, str], Callable[[Any], Opened]]] = {
    ("fractions", "Fraction"): _exact,
    ("pathlib", "PurePath"): lambda value: (str(value), None),
    ("ipaddress", "_IPAddressBase"): lambda value: (str(value), None),
    ("msgspec", "Struct"): lambda value: (_fields(value, value.__struct_fields__), None),
    ("pydantic", "BaseModel"): _pydantic,
    ("numpy", "generic"): _numpy_scalar,
    ("numpy", "ndarray"): _numpy_array,
    ("pandas", "Index"): _pandas_column,
    ("pandas", "Series"): _pandas_column,
    ("pandas", "ExtensionArray"): _pandas_column,
    ("pandas", "DataFrame"): _pandas_frame,
    ("pandas", "NAType"): lambda _: (None, None),
}
