"""What the SDK takes, the specification allows and the collector stores as it was meant."""

from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import jsonschema_rs
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import analytics_sdk
from analytics_collector.ingest import decode
from analytics_collector.ingest.validate import validate

SPEC = Path(__file__).parents[2] / "spec"
SCHEMA = jsonschema_rs.Draft202012Validator(json.loads((SPEC / "schema/event.json").read_text()))


class Plan(Enum):
    PRO = "pro"


CYCLE: dict[str, Any] = {}
CYCLE["self"] = CYCLE

HOSTILE = {
    "nan": math.nan,
    "infinity": math.inf,
    "surrogate": "half \ud83d of a pair",
    "nul": "a\0b",
    "beyond 64 bit": 10**30,
    "largest": 2**64 - 1,
    "smallest": -(2**63),
    "object": object(),
    "bytes": b"\xff",
    "set": {1},
    "tuple keys": {(1, 2): "x"},
    "number keys": {1: "x"},
    "decimal": Decimal("12.50"),
    "datetime": datetime(2026, 11, 20, 10, 0, tzinfo=UTC),
    "date": date(2026, 11, 20),
    "uuid": UUID(int=7),
    "enum": Plan.PRO,
    "cycle": CYCLE,
    "deep": json.loads("[" * 25 + "]" * 25),
    "line separator": "\u2028",
}


class Wire:
    """A client whose requests end here, and what was in them."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.client = analytics_sdk.Client(
            "ak_live_test",
            "http://collector.test",
            http_transport=httpx.MockTransport(self._answer),
        )

    def _answer(self, request: httpx.Request) -> httpx.Response:
        body = request.read()
        if request.headers.get("content-encoding") == "gzip":
            body = decode.inflate(body)
        self.bodies.append(body)
        count = len(orjson.loads(body)["batch"])
        return httpx.Response(202, json={"eventCount": count, "duplicates": 0, "rejected": []})

    def sent(self) -> bytes:
        assert self.client.flush(10)
        (body,) = self.bodies
        return body


@pytest.fixture
def wire():
    wire = Wire()
    yield wire
    wire.client.shutdown()


def verdicts(body: bytes) -> list[str]:
    """Return the codes with which the collector would refuse events of *body*."""
    batch = validate(decode.parse(body), 1, datetime.now(UTC))
    return [rejection.code for rejection in batch.rejected]


def assert_agreed(body: bytes) -> None:
    for event in orjson.loads(body)["batch"]:
        SCHEMA.validate(event)
    assert verdicts(body) == []


@pytest.mark.parametrize("kind", HOSTILE)
def test_no_value_makes_an_event_that_the_collector_refuses(wire, kind):
    """And its neighbours are none the worse."""
    wire.client.track("before", {"n": 1}, user_id="u")
    assert wire.client.track("hostile", {"value": HOSTILE[kind]}, user_id="u")
    wire.client.track("after", {"n": 2}, user_id="u")

    body = wire.sent()
    assert_agreed(body)
    assert [event["name"] for event in orjson.loads(body)["batch"]] == [
        "before",
        "hostile",
        "after",
    ]


def test_every_kind_of_event_is_as_the_schema_says(wire):
    """All six, with all that can be given."""
    when = datetime(2026, 11, 20, 10, 0, 31, 120000, tzinfo=UTC)
    common = {"session_id": "s", "timestamp": when, "context": {"ip": "::1", "locale": "de"}}
    client = wire.client
    assert client.track("a", {"b": 1}, user_id="u", anonymous_id="an", **common)
    assert client.identify("u", {"plan": "pro"}, anonymous_id="an", **common)
    assert client.page("home", {"path": "/"}, anonymous_id="an", **common)
    assert client.screen("main", {}, anonymous_id="an", **common)
    assert client.group("g", {"name": "Group"}, user_id="u", **common)
    assert client.alias("an", "u", **common)

    body = wire.sent()
    assert_agreed(body)
    kinds = [event["type"] for event in orjson.loads(body)["batch"]]
    assert kinds == ["track", "identify", "page", "screen", "group", "alias"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=300), st.text(max_size=300), st.dictionaries(st.text(), JSON, max_size=5))
def test_what_track_takes_the_collector_takes(name, user_id, properties):
    """`True` from track() is never followed by a refusal, whatever was tracked."""
    wire = Wire()
    try:
        taken = wire.client.track(name, properties, user_id=user_id)
        wire.client.track("neighbour")
        body = wire.sent()
    finally:
        wire.client.shutdown()

    assert len(orjson.loads(body)["batch"]) == taken + 1
    assert_agreed(body)
