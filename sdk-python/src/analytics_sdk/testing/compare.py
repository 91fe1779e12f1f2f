"""Compare what a test wants with what is on the wire, and say where they differ. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from analytics_sdk.values import encode_foreign

MAX_SHOWN_CHARS = 300


def differences(wanted: Any, found: Any, where: str = "") -> list[str]:
    """
    Return how *found*, plain JSON types, falls short of *wanted*: a line for each place.

    Of a dict at any level the members that are wanted count, of a list all elements. A value is
    wanted as it looks on the wire, a UUID as its text; a matcher compares as it likes.
    """
    if isinstance(wanted, Mapping) and isinstance(found, dict):
        return [
            line for key in wanted for line in _differences_of_member(wanted, found, key, where)
        ]
    if isinstance(wanted, (list, tuple)) and isinstance(found, list) and len(wanted) == len(found):
        pairs = enumerate(zip(wanted, found, strict=True))
        return [line for at, pair in pairs for line in differences(*pair, f"{where}[{at}]")]
    if _is_equal(wanted, found):
        return []
    return [f"{where}: wanted {shown(wanted)}, was {shown(found)}"]


def _differences_of_member(
    wanted: Mapping[Any, Any], found: Mapping[str, Any], key: Any, where: str
) -> list[str]:
    place = f"{where}.{key}" if where else str(key)
    if key in found:
        return differences(wanted[key], found[key], place)
    if isinstance(wanted[key], Mapping) and wanted[key]:
        return differences(wanted[key], {}, place)
    return [f"{place}: wanted {shown(wanted[key])}, is missing"]


def _is_equal(wanted: Any, found: Any) -> bool:
    on_wire = orjson.loads(encode_foreign({"value": wanted})[0])["value"]
    # To Python True is 1.
    is_bool = isinstance(on_wire, bool) or isinstance(found, bool)
    if on_wire is found if is_bool else on_wire == found:
        return True
    # What is no JSON may be a matcher. An array is none: its `==` gives an array.
    is_json = isinstance(wanted, (bool, int, float, str, list, dict))
    return not is_json and (wanted == found) is True


def shown(value: Any) -> str:
    """Return *value* as a message shows it, not longer than a few lines."""
    text = repr(value)
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]}..."
