import array
import collections
import dataclasses
import enum
import fractions
import inspect
import ipaddress
import json
import pathlib
import re
import sys
import threading
import time
import types
import typing
import uuid
from datetime import date, datetime, timedelta, timezone, tzinfo
from datetime import time as time_of_day
from decimal import Decimal

import numpy
import orjson
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from analytics_sdk._limits import MAX_DEPTH, MAX_EVENT_BYTES, MAX_INTEGER, MIN_INTEGER
from analytics_sdk.errors import MisuseError
from analytics_sdk.values import encode, encode_foreign


class Colour(enum.Enum):
    RED = "red"
    PRICE = Decimal("1.5")
    PAIR = (1, 2)


class Level(enum.IntEnum):
    HIGH = 3


class Word(str, enum.Enum):
    YES = "yes"


class Rights(enum.Flag):
    READ = 1
    WRITE = 2


@dataclasses.dataclass
class Point:
    x: int
    y: Decimal


@dataclasses.dataclass(slots=True)
class Order:
    number: int
    start: dataclasses.InitVar[int] = 0
    kind: typing.ClassVar[str] = "order"
    note: str = "none"


class Size(typing.NamedTuple):
    width: int
    height: Decimal


class HostileText(str):
    def __str__(self):
        raise RuntimeError("no")

    __repr__ = __format__ = encode = isascii = __len__ = __str__


class HostileDict(dict):
    def items(self):
        raise RuntimeError("no")

    __iter__ = __len__ = keys = values = copy = items


class EndlessList(list):
    def __iter__(self):
        while True:
            yield 1


class EndlessTuple(tuple):
    __slots__ = ()
    __iter__ = EndlessList.__iter__


class EndlessSet(set):
    __iter__ = EndlessList.__iter__


class HostileObject:
    def __str__(self):
        raise RuntimeError("no")

    __repr__ = __hash__ = __str__

    @property
    def __class__(self):
        raise RuntimeError("no")


class HostileMeta(type):
    @property
    def __mro__(cls):
        raise RuntimeError("no")


class HostileClass(metaclass=HostileMeta):
    pass


class HostileZone(tzinfo):
    def utcoffset(self, moment):
        raise RuntimeError("no")


def endless():
    """An enum whose value is another, and so on for ever."""

    class Endless(enum.Enum):
        ONE = 1

        @property
        def value(self):
            return endless()

    return Endless.ONE


@dataclasses.dataclass
class PartlyHostile:
    good: int = 1
    bad: int = 2

    def __getattribute__(self, name):
        if name == "bad":
            raise RuntimeError("no")
        return super().__getattribute__(name)


class Plain:
    def __str__(self):
        return "plain"


class Strange:
    """Its text is a string with a will of its own."""

    def __str__(self):
        return HostileText("strange")


class StrangePair(tuple):
    __slots__ = ()
    __str__ = Strange.__str__


class Headers(collections.abc.Mapping):
    def __init__(self, **content):
        self._content = content

    def __getitem__(self, name):
        return self._content[name]

    def __iter__(self):
        return iter(self._content)

    def __len__(self):
        return len(self._content)


def counting():
    yield from range(3)


def unset(kind):
    """An instance that `__init__` never saw."""
    return kind.__new__(kind)


Pair = collections.namedtuple("Pair", "a b")
ID = uuid.UUID("0197b0c8-0000-7000-8000-000000000001")
UTC = timezone.utc
NAN = float("nan")

# what a user tracks, what arrives, what is counted
CASES = {
    "none": (None, None, []),
    "text": ("Ünïcödé 🎉", "Ünïcödé 🎉", []),
    "NUL": ("a\0b", "a\0b", []),
    "uuid": (ID, str(ID), []),
    "64 bit": ([MAX_INTEGER, MIN_INTEGER], [2**64 - 1, -(2**63)], []),
    # numbers that JSON has not
    "NaN": (NAN, None, ["not_finite"]),
    "infinities": ([float("-inf"), float("inf")], [None, None], ["not_finite"] * 2),
    "beyond 64 bit": ([2**64, -(2**63) - 1], [str(2**64), str(-(2**63) - 1)], ["integer"] * 2),
    "20,000 bits": (2**20_000, hex(2**20_000), ["integer"]),
    "complex": (1 + 2j, "(1+2j)", ["text"]),
    "decimal": (Decimal("19.90"), 19.9, []),
    "long decimal": (Decimal("0.1234567890123456789"), "0.1234567890123456789", []),
    "large decimal": (Decimal("1e400"), "1E+400", []),
    "tiny decimal": (Decimal("1e-999999999"), "1E-999999999", []),
    "decimal NaN": ([Decimal("NaN"), Decimal("sNaN")], [None, None], ["not_finite"] * 2),
    "decimal infinity": (Decimal("-Infinity"), None, ["not_finite"]),
    "fraction": (fractions.Fraction(1, 10), 0.1, []),
    "fraction that is no float": (fractions.Fraction(1, 3), "1/3", []),
    "large fraction": (fractions.Fraction(10**400, 3), f"{10**400}/3", []),
    # times
    "UTC": (datetime(2026, 1, 2, 3, 4, 5, 678901, UTC), "2026-01-02T03:04:05.678901Z", []),
    "offset": (
        datetime(2026, 1, 2, 3, tzinfo=timezone(timedelta(hours=-3))),
        "2026-01-02T03:00:00-03:00",
        [],
    ),
    "date": (date(2026, 1, 2), "2026-01-02", []),
    "time of day": (time_of_day(3, 4), "03:04:00", []),
    "timedelta": (timedelta(minutes=1, milliseconds=500), 60.5, []),
    # enums
    "enum": (Colour.RED, "red", []),
    "enum of what JSON has not": ([Colour.PRICE, Colour.PAIR], [1.5, [1, 2]], []),
    "int enum": (Level.HIGH, 3, []),
    "text enum": (Word.YES, "yes", []),
    "flags": (Rights.READ | Rights.WRITE, 3, []),
    # containers
    "tuple": ((1, (2,)), [1, [2]], []),
    "named tuple": ([Pair(1, 2), Size(1, Decimal("2.5"))], [{"a": 1, "b": 2},
                    {"width": 1, "height": 2.5}], []),
    "ordered dict": (collections.OrderedDict(a=1), {"a": 1}, []),
    "default dict": (collections.defaultdict(list, a=[1]), {"a": [1]}, []),
    "counter": (collections.Counter("aab"), {"a": 2, "b": 1}, []),
    "mapping proxy": (types.MappingProxyType({"a": 1}), {"a": 1}, []),
    "chain map": (collections.ChainMap({"a": 1}, {"a": 2, "b": 3}), {"a": 1, "b": 3}, []),
    "mapping": (Headers(a=1), {"a": 1}, []),
    "set": ({1}, [1], []),
    "set, sorted": (
        {"b", 3, None, (2, 1), "a", 1.5, frozenset("hgfedcba")},
        [1.5, 3, "a", "b", ["a", "b", "c", "d", "e", "f", "g", "h"], [2, 1], None],
        [],
    ),
    "keys of a dict, not sorted": ({"b": 1, "a": 2}.keys(), ["b", "a"], []),
    "deque": (collections.deque([1, 2]), [1, 2], []),
    "range": (range(3), [0, 1, 2], []),
    "array": (array.array("d", [1.5]), [1.5], []),
    "user string": (collections.UserString("ab"), "ab", []),
    # objects with fields
    "dataclass": (Point(1, Decimal("2.5")), {"x": 1, "y": 2.5}, []),
    "dataclass with slots": (Order(1), {"number": 1, "note": "none"}, []),
    "dataclass with empty slots": (unset(Order), {}, []),
    "dataclass with a hostile field": (PartlyHostile(), {"good": 1, "bad": None}, ["hostile"]),
    # objects that are text
    "path": (pathlib.PurePosixPath("/var/log"), "/var/log", []),
    "IP": (
        [ipaddress.ip_address("::1"), ipaddress.ip_network("10.0.0.0/8")],
        ["::1", "10.0.0.0/8"],
        [],
    ),
    "pattern": (re.compile("a+"), "re.compile('a+')", ["text"]),
    "object": (Plain(), "plain", ["text"]),
    "object of strange text": (Strange(), "strange", ["text"]),
    "object without text": (object(), "<object object>", ["text"]),
    "class": (Point, str(Point), ["text"]),
    "function": (unset, "<function unset>", ["text"]),
    "module": (json, str(json), ["text"]),
    "exception": (ValueError("jane@example.com"), "ValueError", ["text"]),
    "bytes": (b"caf\xc3\xa9 \xff", "café \ufffd", ["bytes"]),
    "bytearray": (bytearray(b"a"), "a", ["bytes"]),
    "memoryview": (memoryview(b"abcd")[::2], "ac", ["bytes"]),
    "lone surrogate": ("a\ud800b", "a\ufffdb", ["surrogate"]),
    "surrogates that belong together": ("\ud83c\udf89", "🎉", ["surrogate"]),
    "JSON that somebody wrote already": (
        orjson.Fragment(b"{broken"),
        "<orjson.Fragment object>",
        ["text"],
    ),
    # keys
    "number keys": ({1: "a", 2.5: "b"}, {"1": "a", "2.5": "b"}, ["key"] * 2),
    "odd keys": (
        {None: 0, True: 1, (1, 2): 2, ID: 3, Colour.RED: 4, b"x": 5, date(2026, 1, 2): 6},
        {"null": 0, "true": 1, "(1, 2)": 2, str(ID): 3, "red": 4, "x": 5, "2026-01-02": 6},
        ["key"] * 7,
    ),
    "text keys": ({Word.YES: 1, HostileText("a"): 2, b"": 3}, {"yes": 1, "a": 2, "": 3}, ["key"]),
    "surrogate key": ({"\udc00": 1}, {"\ufffd": 1}, ["surrogate"]),
    "keys that collide": ({1: "a", "1": "b", "c": 0}, {"1": "b", "c": 0}, ["key", "collision"]),
    "object keys": ({Plain(): 1, StrangePair(): 2}, {"plain": 1, "strange": 2}, ["key"] * 2),
    # hostile ones
    "hostile text": ([HostileText("a"), b""], ["a", ""], ["bytes"]),
    "hostile dict": ([HostileDict(a=1), b""], [{"a": 1}, ""], ["bytes"]),
    "endless list": (EndlessList([2]), [2], []),
    "endless tuple": (EndlessTuple([2]), [2], []),
    "endless set": (EndlessSet([2]), [2], []),
    "hostile object": (HostileObject(), None, ["hostile"]),
    "hostile class": (HostileClass(), None, ["hostile"]),
    "hostile time zone": (datetime(2026, 1, 2, tzinfo=HostileZone()), None, ["hostile"]),
    "enum without end": (endless(), None, ["hostile"]),
}  # fmt: skip


def sent(value):
    """What arrives of *value*, beside neighbours that arrive as they are, and what was counted."""
    encoded, mended = encode({"properties": {"before": 1, "value": value, "after": [2]}})
    properties = json.loads(encoded)["properties"]

    assert {**properties, "value": 0} == {"before": 1, "value": 0, "after": [2]}
    return properties["value"], list(mended)


@pytest.mark.parametrize("case", CASES)
def test_every_value_arrives_in_some_form(case):
    """Nothing raises, the neighbours arrive untouched, and what was mended is counted."""
    value, arrives, counted = CASES[case]

    assert sent(value) == (arrives, counted)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("part", ["properties", "traits", "context"])
def test_a_value_arrives_the_same_beside_one_that_needs_mending(case, part):
    """The slow path and the fast one write the same JSON, in each part of an event."""
    value, arrives, counted = CASES[case]
    encoded, mended = encode({"name": "a", part: {"value": value, "other": 2**70}})

    assert json.loads(encoded) == {"name": "a", part: {"value": arrives, "other": str(2**70)}}
    assert list(mended) == [*counted, "integer"]


@pytest.mark.parametrize("case", CASES)
def test_a_member_that_a_hook_made_is_mended_too(case):
    """`before_send` may put anything anywhere."""
    value, arrives, counted = CASES[case]
    encoded, mended = encode_foreign({"extra": value, "context": None})

    assert json.loads(encoded) == {"extra": arrives, "context": None}
    assert list(mended) == counted


@pytest.fixture
def in_half_past_two(monkeypatch):
    """The local time is 2:30 ahead of UTC."""
    monkeypatch.setenv("TZ", "TST-2:30")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_a_time_without_offset_is_local_time(in_half_past_two):
    """As the `timestamp` of an event is; the offset goes with it."""
    naive = datetime(2026, 1, 2, 3)  # noqa: DTZ001

    assert sent(naive) == ("2026-01-02T03:00:00+02:30", [])
    # The year 1 has no time before it, in which UTC would be.
    assert sent(datetime(1, 1, 1)) == ("0001-01-01T00:00:00", [])  # noqa: DTZ001


def test_an_iterator_is_left_alone():
    """Its values are the program's."""
    iterator = counting()

    assert sent(iterator) == ("<generator object counting>", ["text"])
    assert list(iterator) == [0, 1, 2]


def test_an_attrs_class_is_its_fields():
    """Old style and new, with slots and without."""
    attr = pytest.importorskip("attr")

    @attr.s
    class Old:
        a = attr.ib()
        b = attr.ib(default=Decimal("1.5"))

    @attr.define
    class New:
        a: int

    assert sent([Old(1), New(2), unset(New)]) == ([{"a": 1, "b": 1.5}, {"a": 2}, {}], [])
    assert sent(New) == (str(New), ["text"])


@pytest.mark.parametrize("version", ["pydantic", "pydantic.v1"])
def test_a_pydantic_model_says_itself_what_may_be_seen(version):
    """A secret stays masked, and what is excluded stays out."""
    pydantic = pytest.importorskip(version)

    class Login(pydantic.BaseModel):
        user: str
        at: datetime
        password: pydantic.SecretStr
        token: str = pydantic.Field("hidden", exclude=True)

    login = Login(user="u", at=datetime(2026, 1, 2, tzinfo=UTC), password="secret")

    assert sent(login) == (
        {"user": "u", "at": "2026-01-02T00:00:00Z", "password": "**********"},
        ["text"],
    )


def test_a_pydantic_model_of_the_wrong_type_warns_nobody():
    """Its serialiser would, in the middle of a request."""
    pydantic = pytest.importorskip("pydantic")

    class Login(pydantic.BaseModel):
        user: str

    assert sent(Login.model_construct(user=7)) == ({"user": 7}, [])


def test_a_msgspec_struct_is_its_fields():
    """An attribute of the class is none."""
    msgspec = pytest.importorskip("msgspec")
    login = msgspec.defstruct("Login", [("user", str), ("tries", int, 3)])("u")

    assert sent(login) == ({"user": "u", "tries": 3}, [])


class Shout(numpy.ndarray):
    def tolist(self):
        raise RuntimeError("no")


def objects(*items):
    """An array of these, whatever they are."""
    array = numpy.empty(len(items), dtype=object)
    for place, item in enumerate(items):
        array[place] = item
    return array


def loop():
    """An array of objects that holds itself."""
    array = objects(None)
    array[0] = array
    return array


NUMPY_CASES = {
    "integer": (numpy.int32(7), 7, []),
    "unsigned": (numpy.uint64(2**64 - 1), 2**64 - 1, []),
    "float": (numpy.float64(1.5), 1.5, []),
    "short float": (numpy.float32(0.1), 0.1, []),
    "long float": (numpy.longdouble("1.5"), 1.5, []),
    "too long float": (numpy.longdouble("1e4000"), None, ["not_finite"]),
    "NaN": ([numpy.float64("nan"), numpy.float32("inf")], [None, None], ["not_finite"] * 2),
    "complex": ([numpy.complex64(1j), numpy.clongdouble(1j)], ["1j", "1j"], ["text"] * 2),
    "bool": (numpy.bool_(True), True, []),
    "text": (numpy.str_("a"), "a", []),
    "bytes": (numpy.bytes_(b"a"), "a", ["bytes"]),
    "day": (numpy.datetime64("2026-01-02"), "2026-01-02", []),
    "hour": (numpy.datetime64("2026-01-02T03"), "2026-01-02T03:00:00Z", []),
    "microsecond": (numpy.datetime64("2026-01-02T03:04:05.000006"),
                    "2026-01-02T03:04:05.000006Z", []),
    "nanosecond": (numpy.datetime64("2026-01-02T03:04:05.000000006"),
                   "2026-01-02T03:04:05.000000006Z", []),
    "no time": ([numpy.datetime64("NaT", "ns"), numpy.timedelta64("NaT", "s")], [None, None], []),
    "duration": ([numpy.timedelta64(90, "m"), numpy.timedelta64(3, "ns")], [5400.0, 3e-9], []),
    "months": (numpy.timedelta64(3, "M"), "3 months", ["text"]),
    "array": (numpy.arange(4).reshape(2, 2), [[0, 1], [2, 3]], []),
    "array across": (numpy.arange(4).reshape(2, 2).T, [[0, 2], [1, 3]], []),
    "array backwards": (numpy.arange(3)[::-1], [2, 1, 0], []),
    "array of nothing": (numpy.zeros((2, 0)), [[], []], []),
    "array without dimension": (numpy.array(5), 5, []),
    "time without dimension": (numpy.array("2026-01-02", "M8[ns]"),
                               "2026-01-02T00:00:00.000000000Z", []),
    "array of NaN": (numpy.array([1.0, NAN]), [1.0, None], ["not_finite"]),
    "array of objects": (objects(Decimal(1), None, {1}), [1.0, None, [1]], []),
    "array of times": (numpy.array(["2026-01-02", "NaT"], "M8[ns]"),
                       ["2026-01-02T00:00:00.000000000Z", None], []),
    "array of records": (numpy.array([(1, 2.5)], [("a", int), ("b", float)]), [[1, 2.5]], []),
    "masked array": (numpy.ma.masked_array([1, 2], [0, 1]), [1, None], []),
    "array in itself": (loop(), [None], ["cycle"]),
    "hostile array": (numpy.arange(2).view(Shout), None, ["hostile"]),
}  # fmt: skip


@pytest.mark.parametrize("case", NUMPY_CASES)
def test_numpy_arrives_as_numbers_and_lists(case, in_half_past_two):
    """Times are UTC, as numpy's own clock has them."""
    value, arrives, counted = NUMPY_CASES[case]

    assert sent(value) == (arrives, counted)


@pytest.mark.parametrize(
    "shape", [(10**9,), (10**9, 0), (1000, 1000, 1000, 0)], ids=["long", "empty", "deep"]
)
def test_a_huge_array_is_refused_before_it_is_a_list(shape):
    """Even one that takes no memory, as long as it is an array."""
    with pytest.raises(MisuseError, match="event_too_large"):
        sent(numpy.broadcast_to(numpy.zeros([min(side, 1) for side in shape]), shape))


def test_pandas_arrives_as_lists_and_times(in_half_past_two):
    """What is missing is null."""
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": ["x", "y"], 3: pandas.array([1, None], "Int64")})
    times = pandas.Series(pandas.to_datetime(["2026-01-02", None]))

    assert sent(pandas.Timestamp("2026-01-02T03:04:05Z")) == ("2026-01-02T03:04:05Z", [])
    assert sent(pandas.Timestamp("2026-01-02T03:04:05.1")) == (
        "2026-01-02T03:04:05.100000+02:30",
        [],
    )
    assert sent([pandas.NaT, pandas.NA]) == ([None, None], [])
    assert sent(pandas.Timedelta("90s")) == (90.0, [])
    assert sent(times) == (["2026-01-02T00:00:00+02:30", None], [])
    assert sent(pandas.Series(["a", "b"], dtype="category")) == (["a", "b"], [])
    assert sent(pandas.Series(["a"], dtype="category").array) == (["a"], [])
    assert sent(pandas.Index([1, 2])) == ([1, 2], [])
    assert sent(frame) == ([{"a": "x", "3": 1}, {"a": "y", "3": None}], ["key"] * 2)


def cycle():
    there = {"name": "there"}
    there["back"] = [there]
    return there


def test_a_cycle_is_cut_where_it_closes():
    """The way up to there is kept."""
    encoded, mended = encode({"properties": cycle()})

    assert json.loads(encoded) == {"properties": {"name": "there", "back": [None]}}
    assert mended == ["cycle"]


def test_the_same_object_twice_is_no_cycle():
    """Only what contains itself is."""
    shared = [b"x"]

    assert sent([shared, shared]) == ([["x"], ["x"]], ["bytes"] * 2)


def nested(levels, innermost):
    for _ in range(levels):
        innermost = {"a": innermost}
    return innermost


@pytest.mark.parametrize("innermost", [1, Decimal(1)], ids=["fast", "slow"])
def test_depth_is_bounded(innermost):
    """The collector follows so many levels, the event being the first of them."""
    encode({"properties": nested(MAX_DEPTH - 1, innermost)})
    for levels in (MAX_DEPTH, 200, 10_000):
        with pytest.raises(MisuseError, match="too_deep"):
            encode({"properties": nested(levels, innermost)})


def test_lists_and_tuples_are_levels_too():
    """As dicts are."""
    deep = ()
    for _ in range(MAX_DEPTH - 3):
        deep = [deep] if type(deep) is tuple else (deep,)
    encode({"properties": {"deep": deep}})

    with pytest.raises(MisuseError, match="too_deep"):
        encode({"properties": {"deep": [deep]}})


def test_many_brackets_are_not_deep():
    """Neither a wide event nor one with brackets in its text."""
    assert sent([[[]] * 100, "{[" * 100]) == ([[[]] * 100, "{[" * 100], [])


@pytest.mark.parametrize("more", [None, {1}], ids=["fast", "slow"])
def test_size_is_bounded(more):
    """What the collector would refuse does not even queue."""
    rest = len(encode({"properties": {"more": more, "text": ""}})[0])
    encode({"properties": {"more": more, "text": "x" * (MAX_EVENT_BYTES - rest)}})

    with pytest.raises(MisuseError, match="event_too_large"):
        encode({"properties": {"more": more, "text": "x" * (MAX_EVENT_BYTES - rest + 1)}})


@pytest.mark.parametrize("more", [[], [b""]], ids=["fast", "slow"])
def test_the_largest_list_that_fits_is_taken(more):
    """The estimate before the encoding is never too high."""
    rest = len(encode({"properties": {"list": [], "more": more}})[0])
    fits = [0] * ((MAX_EVENT_BYTES - rest + 1) // 2)

    assert len(encode({"properties": {"list": fits, "more": more}})[0]) >= MAX_EVENT_BYTES - 1


def ten_times_ten_times_ten(innermost):
    for _ in range(20):
        innermost = [innermost] * 10
    return innermost


@pytest.mark.parametrize(
    "value",
    [
        ten_times_ten_times_ten(0),
        ten_times_ten_times_ten(b"x"),
        [b"x", ten_times_ten_times_ten(0)],
        [range(10**6)] * 10,
        range(10**30),
        ["x" * 100_000] * 50_000,
        [{"x" * 100_000: b""}] * 50_000,
    ],
    ids=["lists", "lists to mend", "lists beside", "ranges", "range", "texts", "keys"],
)
def test_what_unfolds_for_ever_is_given_up(value):
    """Ten times ten times ten lists take no memory, but their JSON would take all of it."""
    with pytest.raises(MisuseError, match="event_too_large"):
        sent(value)


HUGE = {
    "list": lambda: [0] * 5_000_000,
    "set": lambda: set(range(1_000_000)),
    "frozen set": lambda: frozenset(range(1_000_000)),
    "dict": lambda: dict.fromkeys(range(1_000_000)),
    "subclass": lambda: EndlessSet(range(1_000_000)),
    "deque": lambda: collections.deque([0]) * 1_000_000,
    "text": lambda: "é" * 10_000_000,
    "bytes": lambda: b"\xff" * 10_000_000,
    "integer": lambda: 1 << 80_000_000,
    "numpy array": lambda: numpy.zeros(5_000_000),
    "pandas column": lambda: pytest.importorskip("pandas").Series(numpy.zeros(5_000_000)),
    "pandas frame": lambda: pytest.importorskip("pandas").DataFrame(numpy.zeros((5, 1_000_000))),
}


def cpu_s(act):
    """Return the least processor time of three: one may have a collection of garbage in it."""
    times = []
    for _ in range(3):
        started = time.thread_time()
        act()
        times.append(time.thread_time() - started)
    return min(times)


@pytest.mark.parametrize("case", HUGE)
@pytest.mark.parametrize("beside", [[], [b""]], ids=["fast", "slow"])
def test_what_is_huge_does_not_keep_the_caller(case, beside):
    """It is refused in less time than it takes to write a few million numbers."""
    huge, million = HUGE[case](), list(range(1_000_000))

    def refused():
        with pytest.raises(MisuseError, match="event_too_large"):
            encode({"properties": {"beside": beside, "huge": huge}})

    assert cpu_s(refused) < cpu_s(lambda: orjson.dumps([million, million, million]))


def test_a_program_may_forbid_long_integers():
    """Python lets it, down to 640 digits."""
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(640)
    try:
        assert sent([2**2048, 2**2049]) == ([hex(2**2048), hex(2**2049)], ["integer"] * 2)
        assert sent(2**2047) == (str(2**2047), ["integer"])
    finally:
        sys.set_int_max_str_digits(limit)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_ends_a_program_passes(error):
    """Ctrl-C in the middle of a user's `__str__` is still Ctrl-C."""

    class Interrupted:
        def __str__(self):
            raise error

    with pytest.raises(error):
        sent(Interrupted())


@pytest.fixture
def many_threads():
    """Switch from thread to thread wherever Python can."""
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval_s)


@pytest.mark.parametrize("kind", [list, set], ids=["fast", "slow"])
def test_what_other_threads_change_is_no_danger(many_threads, kind):
    """Some state of it arrives; nothing raises and nothing is lost."""
    shared = {"dict": {f"kept {number}": number for number in range(50)}, "items": kind([0])}
    add = shared["items"].append if kind is list else shared["items"].add
    stop = threading.Event()

    def change():
        while not stop.is_set():
            for number in range(25):
                shared["dict"][f"more {number}"] = shared[f"more {number}"] = number
                add(number)
            for number in range(25):
                del shared["dict"][f"more {number}"], shared[f"more {number}"]
            shared["items"].clear()

    thread = threading.Thread(target=change)
    thread.start()
    try:
        arrived = [encode({"properties": shared}) for _ in range(500)]
    finally:
        stop.set()
        thread.join()

    assert {word for _, mended in arrived for word in mended} == set()
    assert all(b'"kept 0":0' in encoded and b'"kept 49":49' in encoded for encoded, _ in arrived)


@pytest.mark.parametrize("room", range(6))
def test_what_opens_and_opens_does_not_use_up_the_stack(room):
    """Wherever in our code its end would come."""
    chain = collections.UserString("end")
    for _ in range(1000):
        outer = collections.UserString("")
        outer.data, chain = chain, outer
    limit, used = sys.getrecursionlimit(), len(inspect.stack(0))
    sys.setrecursionlimit(used + 700 + room)
    try:
        arrived = sent(chain)
    finally:
        sys.setrecursionlimit(limit)

    assert arrived == (None, ["hostile"])


# Other programs may keep the machine busy.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
NUMBERS = st.integers(MIN_INTEGER, MAX_INTEGER) | st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
PLAIN_VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
    max_leaves=20,
)
HOSTILE_VALUES = st.recursive(
    st.sampled_from(sorted({*CASES} - {"hostile object"})).map(lambda case: CASES[case][0])
    | st.sampled_from(sorted(NUMPY_CASES)).map(lambda case: NUMPY_CASES[case][0])
    | st.none()
    | st.integers()
    | st.floats()
    | st.decimals()
    | st.fractions()
    | st.text(st.characters())
    | st.binary()
    | st.datetimes(timezones=st.none() | st.timezones())
    | st.timedeltas()
    | st.builds(cycle),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.builds(Pair, inner, inner)
        | st.builds(Point, inner, inner)
        | st.builds(EndlessList, st.lists(inner))
        | st.builds(collections.deque, st.lists(inner))
        | st.builds(objects, inner, inner)
        | st.dictionaries(
            st.text(st.characters()) | st.integers() | st.floats() | st.binary() | st.uuids(),
            inner,
        )
    ),
    max_leaves=20,
)


def strict(text):
    """Parse JSON as RFC 8259 has it."""

    def refuse(constant):
        raise ValueError(constant)

    return json.loads(text.decode("utf-8"), parse_constant=refuse)


@PATIENT
@given(st.dictionaries(TEXTS, PLAIN_VALUES))
def test_plain_values_arrive_exactly(properties):
    """Each number, text, list and dict is what it was, also beside one that was mended."""
    encoded, mended = encode({"properties": properties})
    encoded_slowly, mended_slowly = encode({"properties": properties, "traits": {"mend": b""}})

    # By what they look like, since 1, 1.0 and True are equal.
    assert repr(strict(encoded)["properties"]) == repr(properties)
    assert repr(strict(encoded_slowly)["properties"]) == repr(properties)
    assert (mended, mended_slowly) == ((), ["bytes"])


@settings(PATIENT, max_examples=200)
@given(HOSTILE_VALUES)
@example(nested(40, 1))
def test_any_value_becomes_strict_json_or_is_refused(value):
    """Whatever it is made of."""
    event = {"name": "a", "properties": {"before": 1, "value": value, "after": [2]}}
    try:
        encoded, mended = encode(event)
    except MisuseError as refusal:
        assert refusal.reason in ("too_deep", "event_too_large")
        return

    arrived = strict(encoded)
    assert {**arrived["properties"], "value": 0} == {"before": 1, "value": 0, "after": [2]}
    # No half of a surrogate pair.
    repr(arrived).encode()
    assert all(type(word) is str for word in mended)


def test_good_neighbours_of_any_value_arrive_untouched(make_client, collector):
    """Around each odd value, in the same batches, and every repair is counted."""
    client = make_client()
    expected = collections.Counter()
    for number, (value, _, counted) in enumerate([*CASES.values(), *NUMPY_CASES.values()]):
        assert client.track(f"before {number}", {"number": number})
        assert client.track(f"odd {number}", {"value": value})
        expected.update(counted)
    assert client.track("odd", cycle())
    assert client.track("last")
    assert client.flush()

    good = [event for event in collector.stored if event["name"].startswith("before")]
    assert [event["properties"]["number"] for event in good] == list(range(number + 1))
    assert len(collector.stored) == 2 * (number + 1) + 2
    assert client.stats().repaired == {**expected, "cycle": expected["cycle"] + 1}
    assert client.stats().refused == {}
