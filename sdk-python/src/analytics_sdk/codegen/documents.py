"""Find the schemas of events: in a file, in a folder, in a document that is already parsed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from analytics_sdk.codegen.schema import DEFINITIONS, TYPES, CodegenError

# What tells that a document is itself the schema of the properties of one event.
OF_AN_OBJECT = ("properties", "required", "additionalProperties", "allOf", "$ref")

# They stand for events of other types, which have functions of their own.
NOT_TRACKED = ("$identify", "$group", "$page", "$screen")


def load(path: str | os.PathLike[str]) -> dict[str, Any]:
    """
    Return the schema of the properties of each event, by the event's name.

    *path* is a file that `events_of()` understands, or a folder of files `<event>.json`, as
    `analytics-collector schemas` has it: what no file may be called is written as in a URL. Raises
    CodegenError.
    """
    place = Path(path)
    if not place.is_dir():
        return events_of(_parsed(place), str(place), event=place.stem)
    events = {unquote(file.stem): expanded(_parsed(file)) for file in sorted(place.glob("*.json"))}
    for name in NOT_TRACKED:
        events.pop(name, None)
    if not events:
        raise CodegenError(str(place), "there is no file <event>.json in the folder.")
    return events


def events_of(document: Any, source: str, *, event: str | None = None) -> dict[str, Any]:
    """
    Return the schema of the properties of each event in the parsed *document*, by name.

    It is `{"events": {"<event>": SCHEMA}}`, perhaps with `$defs` beside; or a JSON Schema whose
    `$defs` are the events: those that its `oneOf` or `anyOf` lists, else all that no `$ref` points
    at; or the schema of the one event called *event*. *source* is for messages.
    """
    if not isinstance(document, Mapping):
        raise CodegenError(source, "must be a JSON object.")
    shared = {key: document[key] for key in DEFINITIONS if isinstance(document.get(key), Mapping)}
    if isinstance(document.get("events"), Mapping):
        events = dict(document["events"])
    elif event is not None and _is_of_an_object(document):
        return {event: expanded(document)}
    elif shared:
        events = _defined_events(document, shared)
    else:
        raise CodegenError(source, "has neither `events` nor `$defs` nor `properties`.")
    if not events:
        raise CodegenError(source, "has no event.")
    return {name: _with_definitions(expanded(schema), shared) for name, schema in events.items()}


def expanded(schema: Any) -> Any:
    """
    Return the JSON Schema for the short form `{"orderId": "string"}`, others as they are.

    All of it is required but for what ends in a question mark: `"string?"`.
    """
    if not _is_short(schema):
        return schema
    properties = {name: {"type": _type(kind)} for name, kind in schema.items()}
    required = [name for name, kind in schema.items() if kind == _type(kind)]
    return {"type": "object", "properties": properties, "required": required}


def _type(kind: str) -> str:
    return kind.removesuffix("?")


def _is_short(schema: Any) -> bool:
    # {"type": "object"} is a JSON Schema, {"type": "string"} can be no event's.
    return (
        isinstance(schema, Mapping)
        and bool(schema)
        and all(isinstance(kind, str) and _type(kind) in TYPES for kind in schema.values())
        and schema.get("type") != "object"
    )


def _is_of_an_object(document: Mapping[str, Any]) -> bool:
    is_object = document.get("type") == "object" or any(key in document for key in OF_AN_OBJECT)
    return is_object or _is_short(document)


def _defined_events(
    document: Mapping[str, Any], shared: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Return those of the definitions that are events."""
    found = {
        f"#/{key}/{_pointer(name)}": (name, schema)
        for key, definitions in shared.items()
        for name, schema in definitions.items()
    }
    listed = set(_references([document.get("oneOf"), document.get("anyOf")]))
    used = set(_references(shared))
    return {
        name: schema
        for reference, (name, schema) in found.items()
        if (reference in listed if listed else reference not in used)
    }


def _references(node: Any) -> Iterator[str]:
    """Yield every `$ref` in *node*."""
    if isinstance(node, Mapping):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        node = list(node.values())
    if isinstance(node, list):
        for part in node:
            yield from _references(part)


def _pointer(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def _with_definitions(schema: Any, shared: Mapping[str, Mapping[str, Any]]) -> Any:
    """Return *schema* with the definitions of its document, so that it stands for itself."""
    if not isinstance(schema, Mapping) or not shared:
        return schema
    return {
        **schema,
        **{key: {**shared[key], **schema[key]} if key in schema else shared[key] for key in shared},
    }


def _parsed(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8-sig"), object_pairs_hook=_unique)
    except OSError as error:
        raise CodegenError(str(file), f"can't be read: {error.strerror}.") from error
    except RecursionError as error:
        raise CodegenError(str(file), "is nested too deep.") from error
    except ValueError as error:
        raise CodegenError(str(file), f"is not JSON in UTF-8: {error}.") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} stands in one object twice")
    return members
