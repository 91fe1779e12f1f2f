import dataclasses
import json
import types
import uuid
from collections import OrderedDict, deque, namedtuple
from datetime import date, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum, IntEnum

import numpy
import pytest

from analytics_sdk._limits import MAX_DEPTH, MAX_EVENT_BYTES
from analytics_sdk.errors import MisuseError
from analytics_sdk.values import encode


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


@dataclasses.dataclass
class Point:
    x: int
    y: Decimal


class HostileText(str):
    def __str__(self):
        raise RuntimeError("no")

    __repr__ = __format__ = encode = __str__


class HostileDict(dict):
    def items(self):
        raise RuntimeError("no")

    __iter__ = keys = values = items


class HostileObject:
    def __str__(self):
        raise RuntimeError("no")

    __repr__ = __hash__ = __str__

    @property
    def __class__(self):
        raise RuntimeError("no")


class HostileZone(tzinfo):
    def utcoffset(self, moment):
        raise RuntimeError("no")


class Unset:
    """A dataclass with slots, one of them empty; on such a thing orjson itself would crash."""

    x: int


Unset = dataclasses.dataclass(slots=True)(Unset)


class Plain:
    def __str__(self):
        return "plain"


Pair = namedtuple("Pair", "a b")
ID = uuid.UUID("0197b0c8-0000-7000-8000-000000000001")
UTC = timezone.utc

# what a user tracks, what arrives, what is counted
CASES = {
    "none": (None, None, []),
    "text": ("Ünïcödé 🎉", "Ünïcödé 🎉", []),
    "NUL": ("a\0b", "a\0b", []),
    "NaN": (float("nan"), None, []),
    "infinity": (float("-inf"), None, []),
    "aware datetime": (
        datetime(2026, 1, 2, 3, 4, 5, 678901, UTC),
        "2026-01-02T03:04:05.678901Z",
        [],
    ),
    "naive datetime": (
        datetime(2026, 1, 2, 3),  # noqa: DTZ001
        "2026-01-02T03:00:00",
        [],
    ),
    "date": (date(2026, 1, 2), "2026-01-02", []),
    "uuid": (ID, str(ID), []),
    "enum": (Colour.RED, "red", []),
    "int enum": (Level.HIGH, 3, []),
    "tuple": ((1, (2,)), [1, [2]], []),
    "named tuple": (Pair(1, 2), [1, 2], []),
    "dataclass": (Point(1, Decimal("2.5")), {"x": 1, "y": 2.5}, []),
    "dataclass with an empty slot": (Unset.__new__(Unset), None, ["hostile"]),
    "ordered dict": (OrderedDict(a=1), {"a": 1}, []),
    "mapping": (types.MappingProxyType({"a": 1}), {"a": 1}, []),
    "set": ({1}, [1], []),
    "frozen set": (frozenset({"a"}), ["a"], []),
    "deque": (deque([1, 2]), [1, 2], []),
    "range": (range(3), [0, 1, 2], []),
    "decimal": (Decimal("19.90"), 19.9, []),
    "long decimal": (Decimal("0.1234567890123456789"), "0.1234567890123456789", []),
    "large decimal": (Decimal("1e400"), "1E+400", []),
    "decimal NaN": (Decimal("NaN"), None, []),
    "numpy integer": (numpy.int32(7), 7, []),
    "numpy float": (numpy.float64(1.5), 1.5, []),
    "numpy bool": (numpy.bool_(True), True, []),
    "numpy array": (numpy.arange(4).reshape(2, 2), [[0, 1], [2, 3]], []),
    "numpy array across": (numpy.arange(4).reshape(2, 2).T, [[0, 2], [1, 3]], []),
    "numpy objects": (numpy.array([Decimal(1), None]), [1.0, None], []),
    "64 bit": ([2**64 - 1, -(2**63)], [2**64 - 1, -(2**63)], []),
    "beyond 64 bit": ([2**64, -(2**63) - 1], [str(2**64), str(-(2**63) - 1)], ["integer"] * 2),
    "20,000 bits": (2**20_000, hex(2**20_000), ["integer"]),
    "bytes": (b"caf\xc3\xa9 \xff", "café \ufffd", ["bytes"]),
    "bytearray": (bytearray(b"a"), "a", ["bytes"]),
    "lone surrogate": ("a\ud800b", "a\ufffdb", ["surrogate"]),
    "surrogates that belong together": ("\ud83c\udf89", "🎉", ["surrogate"]),
    "object": (Plain(), "plain", ["text"]),
    "timedelta": (timedelta(seconds=90), "0:01:30", ["text"]),
    "class": (Point, str(Point), ["text"]),
    "number keys": ({1: "a", 2.5: "b"}, {"1": "a", "2.5": "b"}, ["key"] * 2),
    "odd keys": (
        {None: 0, True: 1, (1, 2): 2, ID: 3, Colour.RED: 4, b"x": 5, date(2026, 1, 2): 6},
        {"null": 0, "true": 1, "(1, 2)": 2, str(ID): 3, "red": 4, "x": 5, "2026-01-02": 6},
        ["key"] * 7,
    ),
    "surrogate key": ({"\udc00": 1}, {"\ufffd": 1}, ["surrogate"]),
    "hostile text": ([HostileText("a"), b""], ["a", ""], ["bytes"]),
    "hostile dict": ([HostileDict(a=1), b""], [{"a": 1}, ""], ["bytes"]),
    "hostile object": (HostileObject(), None, ["hostile"]),
    "hostile key": ({Plain(): 1}, {"plain": 1}, ["key"]),
    "hostile time zone": (datetime(2026, 1, 2, tzinfo=HostileZone()), None, ["hostile"]),
}


def cycle():
    there = {"name": "there"}
    there["back"] = [there]
    return there


@pytest.mark.parametrize("case", CASES)
def test_every_value_arrives_in_some_form(case):
    """Nothing raises, the neighbours arrive untouched, and what was mended is counted."""
    value, arrives, counted = CASES[case]
    encoded, mended = encode({"before": 1, "value": value, "after": [2]})

    assert json.loads(encoded) == {"before": 1, "value": arrives, "after": [2]}
    assert list(mended) == counted


@pytest.mark.parametrize("case", CASES)
def test_a_value_arrives_the_same_beside_one_that_needs_mending(case):
    """The slow path and the fast one write the same JSON."""
    value, arrives, counted = CASES[case]
    encoded, mended = encode({"value": value, "other": 2**70})

    assert json.loads(encoded) == {"value": arrives, "other": str(2**70)}
    assert list(mended) == [*counted, "integer"]


def test_a_cycle_is_cut_where_it_closes():
    """The way up to there is kept."""
    encoded, mended = encode({"properties": cycle()})

    assert json.loads(encoded) == {"properties": {"name": "there", "back": [None]}}
    assert mended == ["cycle"]


def test_the_same_object_twice_is_no_cycle():
    """Only what contains itself is."""
    shared = [b"x"]

    assert encode({"a": shared, "b": shared}) == (b'{"a":["x"],"b":["x"]}', ["bytes", "bytes"])


def nested(levels, innermost):
    for _ in range(levels):
        innermost = {"a": innermost}
    return innermost


@pytest.mark.parametrize("innermost", [1, Decimal(1)], ids=["fast", "slow"])
def test_depth_is_bounded(innermost):
    """The collector follows so many levels, the event being the first of them."""
    encode(nested(MAX_DEPTH, innermost))
    for levels in (MAX_DEPTH + 1, 200, 10_000):
        with pytest.raises(MisuseError, match="too_deep"):
            encode(nested(levels, innermost))


def test_many_brackets_are_not_deep():
    """Neither a wide event nor one with brackets in its text."""
    encode({"list": [[]] * 100, "text": "{[" * 100})


@pytest.mark.parametrize("more", [None, {1}], ids=["fast", "slow"])
def test_size_is_bounded(more):
    """What the collector would refuse does not even queue."""
    rest = len(encode({"more": more, "text": ""})[0])
    encode({"more": more, "text": "x" * (MAX_EVENT_BYTES - rest)})

    with pytest.raises(MisuseError, match="event_too_large"):
        encode({"more": more, "text": "x" * (MAX_EVENT_BYTES - rest + 1)})


def test_what_unfolds_for_ever_is_given_up():
    """Ten times ten times ten lists take no memory, but their JSON would take all of it."""
    bomb = [b"x"]
    for _ in range(20):
        bomb = [bomb] * 10
    for value in (bomb, range(10**12), [range(10**6)] * 10):
        with pytest.raises(MisuseError, match="event_too_large"):
            encode({"value": value, "slow": b""})
