"""A first schema, guessed from what was sent."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from analytics_collector.schemas.compiled import compiled
from analytics_collector.schemas.document import read_schema
from analytics_collector.schemas.infer import infer


def of_member(values):
    """Return what is said of a member that had *values*."""
    return infer([{"a": value} for value in values])["properties"]["a"]


def test_what_99_of_100_events_have_is_required():
    """One that forgot it does not make it optional; two do."""
    events = [{"a": 1, "b": 1, "c": 1}] * 98 + [{"a": 1, "b": 1}, {"a": 1}]

    schema = infer(events)

    assert schema["required"] == ["a", "b"]
    assert list(schema["properties"]) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([1, 2], {"type": "integer"}),
        ([1, 2.5], {"type": "number"}),
        ([True, False], {"type": "boolean"}),
        ([None], {"type": "null"}),
        (["a", None], {"type": ["null", "string"]}),
        ([1, "a"], {"type": ["integer", "string"]}),
        ([[1], ["a"]], {"type": "array", "items": {"type": ["integer", "string"]}}),
        ([[]], {"type": "array"}),
        ([{"x": 1}, {}], {"type": "object", "properties": {"x": {"type": "integer"}},
                          "required": []}),
    ],
)  # fmt: skip
def test_the_type_is_what_all_of_them_were(values, said):
    """Integers are numbers as soon as one is not whole."""
    assert of_member(values) == said


def test_few_values_that_came_often_are_listed():
    """But not names of which each is likely to be a new one, nor what somebody is called."""
    assert of_member(["EUR", "USD"] * 20) == {"type": "string", "enum": ["EUR", "USD"]}
    assert of_member(["EUR", "USD"] * 5) == {"type": "string"}
    assert of_member(["EUR"] * 100 + ["Bob"]) == {"type": "string"}
    assert of_member([f"user-{n}" for n in range(200)]) == {"type": "string"}


def test_formats_are_found_where_every_value_has_them():
    """One that does not is enough to say nothing."""
    now = datetime.now(UTC)
    times = [(now + timedelta(seconds=n)).isoformat() for n in range(10)]

    assert of_member(times)["format"] == "date-time"
    assert of_member([time[:10] for time in times])["format"] == "date"
    assert of_member([str(uuid4()) for _ in range(10)])["format"] == "uuid"
    assert of_member([f"u{n}@example.com" for n in range(10)])["format"] == "email"
    assert of_member([f"https://example.com/{n}" for n in range(10)])["format"] == "uri"
    assert "format" not in of_member([*times, "later"])


def test_an_object_whose_keys_are_data_has_no_members():
    """A map by user, say."""
    events = [{"by": {f"user-{n}": 1}} for n in range(200)]

    assert infer(events)["properties"]["by"] == {"type": "object"}


def test_what_is_inferred_can_be_registered_and_fits():
    """However wild the events were."""
    wild = {}
    for level in range(20):
        wild = {f"m{n}": [wild, level, "x"] for n in range(3)} if level < 5 else {"deep": wild}
    events = [{f"k{n}": [{f"y{n}": wild}] for n in range(60)}, {"k1": None}] * 3

    schema = infer(events)

    read_schema(schema)
    assert all(compiled(schema).is_valid(event) for event in events)
