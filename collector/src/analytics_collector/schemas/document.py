"""Read an event schema as it is registered: its form, its bounds, what may not be in it. Pure.

It is a JSON Schema 2020-12 of the `properties` (track, page, screen) or `traits` (identify, group)
of the event that it is named after, or the short form `{"orderId": "string", "note": "string?"}`.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from analytics_collector._limits import MAX_NAME_CHARS
from analytics_collector.errors import InvalidQuery
from analytics_collector.schemas.compiled import compiled
from analytics_collector.schemas.cost import measure

MAX_SCHEMA_BYTES: Final = 64 * 1_024
MAX_LEVELS: Final = 64
TYPES: Final = frozenset({"string", "integer", "number", "boolean", "null", "array", "object"})


@dataclass(frozen=True, slots=True)
class EventSchema:
    """A schema that may be registered."""

    document: str
    """As it was given, as JSON."""
    digest: bytes
    """The same for all documents that mean the same, whatever the order of their members."""
    size_bytes: int
    patterns: int


def read_schema(document: Any) -> EventSchema:
    """Return what is registered of *document*, decoded JSON. Raises `InvalidQuery`."""
    if not isinstance(document, dict):
        raise InvalidQuery("schema", "must be a JSON object")
    try:
        text = orjson.dumps(document)
    except TypeError as exc:  # nested deeper than 254 levels
        raise InvalidQuery("schema", f"may have at most {MAX_LEVELS} levels") from exc
    if len(text) > MAX_SCHEMA_BYTES:
        raise InvalidQuery("schema", f"may have at most {MAX_SCHEMA_BYTES} bytes")
    if not _is_within(document, MAX_LEVELS):
        raise InvalidQuery("schema", f"may have at most {MAX_LEVELS} levels")
    if b"\\u0000" in text:
        raise InvalidQuery("schema", "may hold no NUL character")
    schema = expanded(document)
    patterns = measure(schema)
    compiled(schema)
    return EventSchema(text.decode(), _digest(schema), len(text), patterns)


def expanded(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON Schema for the short form, others as they are.

    `analytics-sdk codegen` reads the same; `spec/vectors/schemas.json` holds both to it.
    """
    if not _is_short(document):
        return dict(document)
    properties = {name: {"type": kind.removesuffix("?")} for name, kind in document.items()}
    required = [name for name, kind in document.items() if not kind.endswith("?")]
    return {"type": "object", "properties": properties, "required": required}


def _digest(schema: dict[str, Any]) -> bytes:
    # In the short form the order of what is required is that of the members.
    required = schema.get("required")
    if isinstance(required, list):
        schema = {**schema, "required": sorted(required)}
    return hashlib.sha256(orjson.dumps(schema, option=orjson.OPT_SORT_KEYS)).digest()


def _is_short(document: Mapping[str, Any]) -> bool:
    # {"type": "object"} is a JSON Schema, {"type": "string"} can be no event's.
    return (
        bool(document)
        and all(
            isinstance(kind, str) and kind.removesuffix("?") in TYPES for kind in document.values()
        )
        and document.get("type") != "object"
    )


def read_event_name(name: str) -> str:
    """Return *name* if an event may be called that. Raises `InvalidQuery`."""
    if not 0 < len(name) <= MAX_NAME_CHARS or any(
        unicodedata.category(char) in ("Cc", "Cs") for char in name
    ):
        raise InvalidQuery(
            "eventName", f"must have 1 to {MAX_NAME_CHARS} characters, none a control character"
        )
    return name


def _is_within(value: Any, levels: int) -> bool:
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list):
        return True
    return levels > 0 and all(_is_within(item, levels - 1) for item in value)
