"""Whatever a program tracks: no exception, strict JSON on the wire, and the neighbours arrive."""

import math
import uuid
from datetime import datetime, timedelta, timezone, tzinfo
from decimal import Decimal

import pytest


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


class HostileZone(tzinfo):
    def utcoffset(self, moment):
        raise RuntimeError("no")


def self_reference():
    loop = {}
    loop["self"] = loop
    return loop


VALUES = {
    "object": object(),
    "NaN": math.nan,
    "infinity": math.inf,
    "minus infinity": -math.inf,
    "1e400": float("1e400"),
    "decimal 1e400": Decimal("1e400"),
    "decimal NaN": Decimal("NaN"),
    "lone surrogate": "\ud800",
    "lone surrogate as key": {"\udfff": 1},
    "self reference": self_reference(),
    "10^30": 10**30,
    "bytes": b"\xff\x00",
    "decimal": Decimal("19.90"),
    "naive datetime": datetime(2026, 1, 1),  # noqa: DTZ001
    "aware datetime": datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=14))),
    "hostile zone": datetime(2026, 1, 1, tzinfo=HostileZone()),
    "tuple keys": {(1, 2): 3, None: 4, 1.5: 5, uuid.UUID(int=1): 6},
    "set": {1, "a"},
    "NUL": "a\0b",
    "hostile text": HostileText("text"),
    "hostile text as key": {HostileText("key"): 1},
    "hostile dict": HostileDict(a=1),
    "hostile object": HostileObject(),
    "generator": (number for number in range(3)),
    "function": len,
    "exception": ValueError("secret"),
}


@pytest.mark.parametrize("place", ["properties", "traits", "context"])
def test_no_value_raises_or_harms_its_neighbours(make_client, collector, place):
    """All of them in one batch, each between two events that are plain."""
    client = make_client(batch_size=500)
    answers = {}
    for name, value in VALUES.items():
        assert client.track(f"before {name}")
        if place == "traits":
            answers[name] = client.identify(name, {"value": value})
        else:
            answers[name] = client.track(name, **{place: {"value": value}})
        assert client.track(f"after {name}")

    # The collector parses strictly, and says so when it is stopped.
    assert client.flush(20)
    assert set(answers.values()) <= {True, False}
    stats = client.stats()
    assert stats.delivered == 2 * len(VALUES) + sum(answers.values())
    assert sum(stats.refused.values()) == list(answers.values()).count(False)
    for name in VALUES:
        assert {f"before {name}", f"after {name}"} <= set(collector.names)
