"""Compile a schema such that checking an event against it is quick, whoever wrote it."""

from __future__ import annotations

from typing import Any, Final

import jsonschema_rs

from analytics_collector.errors import InvalidQuery

# The linear-time engine: no look-around, no back references, and no pattern that takes longer the
# longer one looks. Its size bounds what a pattern costs for each character of a text.
_PATTERNS: Final = jsonschema_rs.RegexOptions(size_limit=16 * 1_024, dfa_size_limit=128 * 1_024)

_WHOLE: Final = "json-schema:///event"

Validator = jsonschema_rs.Draft202012Validator


def compiled(schema: dict[str, Any]) -> Validator:
    """Return the validator of *schema*. Raises `InvalidQuery` if it is no JSON Schema 2020-12."""
    try:
        return _validator(_without_id(schema), None)
    except jsonschema_rs.ValidationError as exc:
        place = ".".join(["schema", *map(str, exc.instance_path)])
        raise InvalidQuery(place, _reason(exc)) from exc
    except (ValueError, jsonschema_rs.ReferencingError) as exc:
        raise InvalidQuery("schema", str(exc).partition("\n")[0][:200]) from exc


def compiled_piece(piece: dict[str, Any], schema: dict[str, Any]) -> Validator:
    """Return the validator of *piece*, some of *schema*, which was compiled before.

    Its references go on to mean parts of *schema*.
    """
    moved = _moved(piece)
    if moved == piece:
        return _validator(piece, None)
    return _validator(moved, jsonschema_rs.Registry([(_WHOLE, _without_id(schema))]))


def _validator(schema: dict[str, Any], registry: jsonschema_rs.Registry | None) -> Validator:
    return Validator(
        schema,
        validate_formats=True,
        ignore_unknown_formats=True,
        pattern_options=_PATTERNS,
        retriever=_refuse,
        registry=registry,
    )


def _without_id(schema: dict[str, Any]) -> dict[str, Any]:
    # It would change what references are relative to; ours are inside the schema.
    return {word: value for word, value in schema.items() if word != "$id"}


def _moved(node: Any) -> Any:
    if isinstance(node, list):
        return [_moved(part) for part in node]
    if not isinstance(node, dict):
        return node
    return {
        word: _WHOLE + part if word == "$ref" and isinstance(part, str) else _moved(part)
        for word, part in node.items()
    }


def _reason(exc: jsonschema_rs.ValidationError) -> str:
    if exc.message.endswith('is not a "regex"'):
        return (
            "must be a pattern that can be matched in linear time: no look-around, no back "
            "references, no large repetitions"
        )
    return exc.message[:200]


def _refuse(address: str) -> Any:
    """Fetch nothing: a reference may lead nowhere but into the schema itself."""
    raise ValueError("references to other documents are not followed")
