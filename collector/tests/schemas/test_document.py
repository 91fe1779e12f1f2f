"""What a document that is registered for an event means, and how it is kept in files."""

from __future__ import annotations

import json
from pathlib import Path
from time import process_time

import pytest

from analytics_collector.errors import ConfigurationError
from analytics_collector.schemas.compiled import compiled
from analytics_collector.schemas.document import expanded, read_schema
from analytics_collector.schemas.files import file_name, read_folder, write_folder

VECTORS = json.loads(
    (Path(__file__).parents[3] / "spec/vectors/schemas.json").read_text(encoding="utf-8")
)
# Each at, or nearly at, one of the bounds.
EXPENSIVE = {
    "alternatives": (
        {"properties": {"a": {"items": {"anyOf": [{"maximum": -n} for n in range(290)]}}}},
        {"a": [7] * 50_000},
    ),
    "a pattern": (
        {"properties": {"a": {"pattern": "[ab]*a[ab]{200}c"}}},
        {"a": "abba" * 25_000},
    ),
    "items apart": (
        {"properties": {"a": {"uniqueItems": True}}},
        {"a": [{"x": n} for n in range(10_000)]},
    ),
    "members": (
        {"properties": {f"m{n}": {"type": "string"} for n in range(1_200)}},
        {f"m{n}": "x" * 50 for n in range(1_200)},
    ),
    "divisions": (
        {"properties": {"a": {"items": {"anyOf": [{"multipleOf": 1e-300}] * 9}}}},
        {"a": [1e300] * 14_000},
    ),
}


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["name"])
def test_a_document_means_what_the_vector_says(case):
    """SCH-1. The SDK's code generator runs the same."""
    found = expanded(case["given"]["document"])

    assert json.dumps(found) == json.dumps(case["expect"]["schema"])


@pytest.mark.parametrize("name", EXPENSIVE)
def test_a_schema_within_the_bounds_is_never_slow(name):
    """Whatever 100 KiB an event has: what could take seconds is refused before."""
    schema, value = EXPENSIVE[name]
    read_schema(schema)
    validator = compiled(schema)

    began = process_time()
    validator.is_valid(value)

    # The worst of them takes a third of this on a slow machine.
    assert process_time() - began < 1.5


def test_a_schema_within_the_bounds_is_taken():
    """What people write: references, patterns, an id, formats."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "https://example.com/order.json",
        "properties": {
            "sku": {"$ref": "#/$defs/sku"},
            "mail": {"type": "string", "format": "email"},
            "url": {"pattern": "^https?://[^\\s/$.?#].[^\\s]*$"},
            "id": {"pattern": "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"},
            "lines": {"type": "array", "items": {"$ref": "#/$defs/line"}},
        },
        "$defs": {
            "sku": {"type": "string", "pattern": "^\\w{1,64}$"},
            "line": {"properties": {"sku": {"$ref": "#/$defs/sku"}}},
        },
    }

    assert read_schema(schema).patterns == 3
    assert compiled(schema).is_valid({"sku": "a", "lines": [{"sku": "b"}]})
    assert not compiled(schema).is_valid({"lines": [{"sku": "?"}]})


@pytest.mark.parametrize("name", ["a/b", "..", ".x", "50%", "a%2Fb", 'q"<>|*?:\\', "日本", "CON"])
def test_every_name_has_a_file_of_its_own(tmp_path, name):
    """And is read from it again."""
    schemas = {name: {"a": "string"}, "other": {"b": "string"}}

    write_folder(tmp_path / "new", schemas)

    assert read_folder(tmp_path / "new") == schemas
    assert all(file.parent == tmp_path / "new" for file in tmp_path.rglob("*.json"))


def test_a_name_that_is_too_long_for_a_file_is_told(tmp_path):
    """Before anything is written."""
    with pytest.raises(ConfigurationError, match="too long"):
        write_folder(tmp_path, {"a": {}, "é" * 200: {}})

    assert list(tmp_path.iterdir()) == []
    assert file_name("x" * 250) == "x" * 250 + ".json"


def test_every_file_at_fault_is_named(tmp_path):
    """All at once, so that they can be corrected at once."""
    (tmp_path / "a.json").write_text("{")
    (tmp_path / "b.json").write_text('{"type": "text"}')
    (tmp_path / "c.json").write_text('{"a": "string"}')

    with pytest.raises(ConfigurationError) as caught:
        read_folder(tmp_path)

    first, second = str(caught.value).split("\n")
    assert first.startswith(f"{tmp_path / 'a.json'}: is not JSON")
    assert second.startswith(f"{tmp_path / 'b.json'}: schema.type: ")
