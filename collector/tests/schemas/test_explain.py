"""What is wrong with an event, told in full and without its values."""

from __future__ import annotations

import resource
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics_collector.schemas.compiled import compiled
from analytics_collector.schemas.document import read_schema
from analytics_collector.schemas.explain import Explainer


def explained(schema, value, limit=100):
    """Return the paths and words of what is wrong with *value*."""
    found = Explainer(schema).explain(value, "properties", limit)
    return [(each.path.removeprefix("properties.").removeprefix("properties"), each.keyword)
            for each in found]  # fmt: skip


@pytest.mark.parametrize(
    ("schema", "value", "expected"),
    [
        ({"type": "object", "required": ["a", "b"]}, {"b": 1}, [("a", "required")]),
        ({"properties": {"a": {"type": ["string", "null"]}}}, {"a": 1}, [("a", "type")]),
        ({"properties": {"a": {"type": "integer"}}}, {"a": True}, [("a", "type")]),
        ({"properties": {"a": {"type": "integer"}}}, {"a": 1.5}, [("a", "type")]),
        ({"properties": {"a": {"const": None}}}, {"a": 0}, [("a", "const")]),
        ({"properties": {"a": {"format": "date-time"}}}, {"a": "now"}, [("a", "format")]),
        ({"properties": {"a": {"minLength": 2, "pattern": "x"}}}, {"a": "y"},
         [("a", "pattern"), ("a", "minLength")]),
        ({"properties": {"a": {"pattern": "^x", "minLength": 2}}}, {"a": 5}, []),
        ({"properties": {"a": False}}, {"a": 1}, [("a", "false")]),
        ({"additionalProperties": {"type": "string"}}, {"x": 1}, [("x", "type")]),
        ({"properties": {"a": True}, "additionalProperties": False}, {"a": 1, "b": 1},
         [("b", "additionalProperties")]),
        ({"patternProperties": {"^x": {"type": "string"}}}, {"xa": 1}, [("", "patternProperties")]),
        ({"patternProperties": {"^x": True}, "additionalProperties": False}, {"xa": 1, "b": 1},
         [("", "additionalProperties")]),
        ({"propertyNames": {"maxLength": 2}}, {"long": 1}, [("", "propertyNames")]),
        ({"properties": {"a": {"items": {"type": "string"}}}}, {"a": ["x", 1, 2]},
         [("a.1", "type"), ("a.2", "type")]),
        ({"properties": {"a": {"prefixItems": [{"type": "string"}], "items": False}}},
         {"a": [1, 2]}, [("a.0", "type"), ("a.1", "false")]),
        ({"properties": {"a": {"contains": {"type": "string"}, "minContains": 2}}},
         {"a": ["x", 1]}, [("a", "contains")]),
        ({"properties": {"a": {"uniqueItems": True, "maxItems": 1}}}, {"a": [1, 1]},
         [("a", "maxItems"), ("a", "uniqueItems")]),
        ({"allOf": [{"required": ["a"]}, {"$ref": "#/$defs/x"}],
          "$defs": {"x": {"required": ["b"]}}}, {}, [("a", "required"), ("b", "required")]),
        ({"properties": {"a": {"anyOf": [{"$ref": "#/$defs/x"}, {"type": "null"}]}},
          "$defs": {"x": {"type": "string"}}}, {"a": 1}, [("a", "anyOf")]),
        ({"properties": {"a": {"$ref": "#/properties/b"}, "b": {"type": "string"}}}, {"a": 1},
         [("a", "type")]),
        ({"if": {"required": ["a"]}, "then": {"required": ["b"]}}, {"a": 1}, [("", "if")]),
        ({"dependentRequired": {"a": ["b"]}}, {"a": 1}, [("", "dependentRequired")]),
        ({"properties": {"a": True}, "unevaluatedProperties": False}, {"b": 1},
         [("", "unevaluatedProperties")]),
        ({"properties": {"a": {"type": "string"}}, "unevaluatedProperties": False}, {"a": 1},
         [("a", "type")]),
        ({"not": {"required": ["a"]}}, {"a": 1}, [("", "not")]),
    ],
)  # fmt: skip
def test_each_word_tells_what_it_refuses(schema, value, expected):
    """With the path to the member, which is in the schema's hands alone when it is a group."""
    read_schema(schema)

    if compiled(schema).is_valid(value):
        assert expected == []
    else:
        assert explained(schema, value) == expected


MEMBERS = st.dictionaries(
    st.sampled_from("abcd"),
    st.one_of(
        st.none(), st.booleans(), st.integers(-3, 3), st.text("xy", max_size=3),
        st.lists(st.integers(0, 2), max_size=3), st.dictionaries(st.sampled_from("ab"), st.none()),
    ),
)  # fmt: skip
PLAN = {
    "type": "object",
    "properties": {
        "a": {"type": "string", "minLength": 1, "enum": ["x", "xy", "y"]},
        "b": {"$ref": "#/$defs/number"},
        "c": {"type": ["array", "null"], "items": {"$ref": "#/$defs/number"}, "uniqueItems": True},
        "d": {"type": "object", "required": ["a"], "additionalProperties": False,
              "properties": {"a": {"type": "null"}}},
    },
    "required": ["a", "b"],
    "$defs": {"number": {"type": "integer", "minimum": 0, "maximum": 1}},
}  # fmt: skip


@given(MEMBERS)
def test_an_explanation_agrees_with_the_verdict(value):
    """Something is found if and only if the compiled schema refuses the value."""
    refused = not compiled(PLAN).is_valid(value)

    found = explained(PLAN, value)

    # The last resort, for what could not be found, stands under the word `schema`.
    assert refused == (found != [("", "schema")])


def test_an_explanation_can_not_be_made_to_take_long_or_much_memory():
    """The library's own list of errors takes seconds and a gigabyte for these."""
    alternatives = {"items": {"anyOf": [{"minimum": n, "maximum": -1} for n in range(140)]}}
    schema = {
        "properties": {"a": alternatives, **{f"m{n}": {"type": "string"} for n in range(500)}},
        "required": [f"m{n}" for n in range(500)],
    }
    read_schema(schema)
    value = {"a": [7] * 30_000, **{f"x{n}": "y" * 10 for n in range(3_000)}}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = process_time()

    found = Explainer(schema).explain(value, "properties", 1_000)

    assert len(found) == 1_000
    assert process_time() - began < 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB
