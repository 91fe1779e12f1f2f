"""Guess the schema of an event from what was sent. Pure.

It is a start for a person to go on from: what nearly all events had is required, what all of
them were is the type. Values stand in it only where there were few of them, each often.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Final

from analytics_collector.errors import InvalidQuery
from analytics_collector.schemas.compiled import Validator, compiled
from analytics_collector.schemas.document import read_schema

REQUIRED_SHARE: Final = 0.99
MAX_ENUM_VALUES: Final = 10
MAX_ENUM_CHARS: Final = 64
# Of each value that an `enum` lists, on the average; else what comes next is likely to be new.
MIN_SEEN_A_VALUE: Final = 20
MIN_FORMATTED: Final = 5
# An object of more is a map whose keys are data.
MAX_MEMBERS: Final = 100
MAX_LEVELS: Final = 6
FORMATS: Final = ("date-time", "date", "uuid", "email", "uri")


def infer(values: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return a schema that *values*, the properties or traits of one event, mostly fit."""
    for levels in (MAX_LEVELS, 1):
        schema = _object(values, levels)
        try:
            read_schema(schema)
        except InvalidQuery:
            continue  # too large to be registered: say less
        return schema
    return {"type": "object"}


def _object(values: Sequence[dict[str, Any]], levels: int) -> dict[str, Any]:
    counts = Counter(name for value in values for name in value)
    if levels == 0 or not counts or len(counts) > MAX_MEMBERS:
        return {"type": "object"}
    properties = {
        name: _value([value[name] for value in values if name in value], levels - 1)
        for name in counts
    }
    required = [name for name, count in counts.items() if count >= REQUIRED_SHARE * len(values)]
    return {"type": "object", "properties": properties, "required": required}


def _value(values: Sequence[Any], levels: int) -> dict[str, Any]:
    kinds = Counter(_kind(value) for value in values)
    if kinds["number"] and kinds.pop("integer", 0):
        kinds["number"] += 1
    types = sorted(kind for kind, count in kinds.items() if count)
    schema: dict[str, Any] = {"type": types[0] if len(types) == 1 else types}
    if "string" in types:
        schema |= _text([value for value in values if isinstance(value, str)], types)
    if "object" in types:
        members = _object([value for value in values if isinstance(value, dict)], levels)
        schema |= {word: said for word, said in members.items() if word != "type"}
    if "array" in types and levels:
        items = [item for value in values if isinstance(value, list) for item in value]
        if items:
            schema["items"] = _value(items, levels - 1)
    return schema


def _text(values: Sequence[str], types: Sequence[str]) -> dict[str, Any]:
    counts = Counter(values)
    is_few = (
        len(counts) <= MAX_ENUM_VALUES
        and len(values) >= MIN_SEEN_A_VALUE * len(counts)
        and min(counts.values()) > 1
        and max(map(len, counts)) <= MAX_ENUM_CHARS
    )
    if is_few and types == ["string"]:
        return {"enum": sorted(counts)}
    if len(values) >= MIN_FORMATTED:
        for name in FORMATS:
            if _all_are(counts, name):
                return {"format": name}
    return {}


def _all_are(texts: Iterable[str], name: str) -> bool:
    is_valid = _format(name).is_valid
    return all(is_valid(text) for text in texts)


@functools.cache
def _format(name: str) -> Validator:
    return compiled({"format": name})


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"
