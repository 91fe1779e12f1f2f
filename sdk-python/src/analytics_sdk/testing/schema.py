"""Judge an event as the collector does, by the specification's own JSON Schema."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from typing import Any

import orjson

try:
    import jsonschema_rs
except ImportError as error:
    raise ImportError(
        "analytics_sdk.testing checks events with jsonschema-rs, which is not installed: "
        "pip install jsonschema-rs, or analytics-sdk with its extra `testing`.",
        name="jsonschema_rs",
    ) from error


@cache
def _schema() -> tuple[dict[str, Any], jsonschema_rs.Draft202012Validator]:
    schema = orjson.loads(files("analytics_sdk").joinpath("_spec/event.json").read_bytes())
    return schema, jsonschema_rs.Draft202012Validator(schema)


def faults_of(event: dict[str, Any]) -> list[str]:
    """Return why the collector would refuse *event*: for each fault a code, where, and what."""
    schema, validator = _schema()
    if validator.is_valid(event):
        return []
    faults = []
    for fault in validator.iter_errors(event):
        field = ".".join(map(str, fault.instance_path))
        where = f" at {field}" if field else ""
        faults.append(f"{_code(schema, fault.evaluation_path)}{where}: {fault.message}")
    return faults


def _code(schema: dict[str, Any], path: Iterable[str | int]) -> str:
    """Return the deepest `x-refusal` on *path*, the way to the keyword that failed."""
    node: Any = schema
    code: str = schema["x-refusal"]
    for step in path:
        # Behind a reference the way goes on inside the definition.
        node = schema["$defs"][node["$ref"].rpartition("/")[2]] if step == "$ref" else node[step]
        if isinstance(node, dict):
            code = node.get("x-refusal", code)
    return code
