"""Read the steps of a funnel: names of events, with conditions on their properties.

Pure. Also holds `Mistakes`, by which a reader tells every mistake of a request in one answer.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from analytics_collector.errors import InvalidQuery

MIN_STEPS, MAX_STEPS = 2, 20
MAX_CONDITIONS = 20
MAX_LIST_VALUES = 100
MAX_TEXT_CHARS = 1_024
MAX_NAME_CHARS = 255

ORDER_OPS = ("gt", "gte", "lt", "lte")
SET_OPS = ("is_set", "is_not_set")
OPS = ("eq", "neq", *ORDER_OPS, "contains", "in", *SET_OPS)

MAX_NUMBER_CHARS = 400
_NUMERIC = re.compile(r"[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]{1,3})?")
_UNREADABLE = re.compile("[\x00\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Condition:
    """What a property must satisfy.

    `operand` is ready to be compared: a text for eq, neq and contains, texts for in, a number
    for gt, gte, lt and lte, None for is_set and is_not_set.
    """

    property: str
    op: str
    operand: str | list[str] | Decimal | None


@dataclass(frozen=True, slots=True)
class Step:
    """Events of one name that satisfy all conditions."""

    event: str
    where: tuple[Condition, ...] = ()


class Mistakes:
    """The mistakes of one request, in the order in which they were found."""

    def __init__(self) -> None:
        self._found: list[tuple[str, str]] = []

    def add(self, field: str, message: str) -> None:
        """Note that *field* is wrong, and what to change."""
        self._found.append((field, message))

    def unknown_members(self, field: str, given: Mapping[str, Any], known: tuple[str, ...]) -> None:
        """Note each member of *given* that is not one of *known*."""
        for name in sorted(given.keys() - set(known)):
            self.add(
                f"{field}{name[:MAX_NAME_CHARS]}", f"is not known; known are {', '.join(known)}"
            )

    def raise_any(self) -> None:
        """Raise `InvalidQuery` for the first mistake, with all of them in `mistakes`."""
        if not self._found:
            return
        refusal = InvalidQuery(*self._found[0])
        refusal.details["mistakes"] = [
            {"field": field, "message": message} for field, message in self._found
        ]
        raise refusal


def check_text(value: Any, field: str, mistakes: Mistakes, max_chars: int = MAX_TEXT_CHARS) -> bool:
    """Whether *value* is a text that Postgres can hold; if not, say so in *mistakes*."""
    if not isinstance(value, str) or not 1 <= len(value) <= max_chars:
        mistakes.add(field, f"must be a text of 1 to {max_chars} characters")
    elif _UNREADABLE.search(value):
        mistakes.add(field, "must not contain NUL or lone surrogates")
    else:
        return True
    return False


def read_steps(value: Any, mistakes: Mistakes) -> tuple[Step, ...]:
    """Return the steps that *value*, decoded JSON, describes; say in *mistakes* what is wrong."""
    if not isinstance(value, list) or not MIN_STEPS <= len(value) <= MAX_STEPS:
        mistakes.add(
            "steps",
            f"must be a list of {MIN_STEPS} to {MAX_STEPS} steps, each the name of an event or "
            '{"event": name, "where": [conditions]}',
        )
        return ()
    return tuple(_read_step(item, f"steps[{i}]", mistakes) for i, item in enumerate(value))


def _read_step(value: Any, field: str, mistakes: Mistakes) -> Step:
    if isinstance(value, str):
        check_text(value, field, mistakes, MAX_NAME_CHARS)
        return Step(value)
    if not isinstance(value, dict):
        mistakes.add(field, 'must be the name of an event or {"event": name, "where": [...]}')
        return Step("")
    mistakes.unknown_members(f"{field}.", value, ("event", "where"))
    check_text(value.get("event"), f"{field}.event", mistakes, MAX_NAME_CHARS)
    where = value.get("where")
    if where is None:
        where = []
    if not isinstance(where, list) or len(where) > MAX_CONDITIONS:
        mistakes.add(f"{field}.where", f"must be a list of at most {MAX_CONDITIONS} conditions")
        where = []
    conditions = (
        _read_condition(item, f"{field}.where[{i}]", mistakes) for i, item in enumerate(where)
    )
    return Step(value.get("event", ""), tuple(conditions))


def _read_condition(value: Any, field: str, mistakes: Mistakes) -> Condition:
    if not isinstance(value, dict):
        mistakes.add(field, 'must be an object: {"property": name, "op": "eq", "value": ...}')
        return Condition("", "", None)
    mistakes.unknown_members(f"{field}.", value, ("property", "op", "value"))
    check_text(value.get("property"), f"{field}.property", mistakes)
    op, operand = value.get("op"), value.get("value")
    field = f"{field}.value"
    if not isinstance(op, str) or op not in OPS:
        mistakes.add(f"{field.removesuffix('value')}op", f"must be one of {', '.join(OPS)}")
    elif op in SET_OPS:
        if operand is not None:
            mistakes.add(field, f"must be left out: {op} compares with nothing")
    elif op == "in":
        operand = _read_texts(operand, field, mistakes)
    elif op in ORDER_OPS:
        operand = _read_number(operand, field, mistakes)
    elif op == "contains":
        check_text(operand, field, mistakes)
    else:
        operand = _read_text(operand, field, mistakes)
    return Condition(value.get("property", ""), op if isinstance(op, str) else "", operand)


def _read_texts(value: Any, field: str, mistakes: Mistakes) -> list[str]:
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_LIST_VALUES:
        mistakes.add(field, f"must be a list of 1 to {MAX_LIST_VALUES} values")
        return []
    return [_read_text(item, f"{field}[{i}]", mistakes) for i, item in enumerate(value)]


def _read_text(value: Any, field: str, mistakes: Mistakes) -> str:
    text = canonical_text(value)
    if text is None:
        hint = "; to find what is not set, use is_not_set" if value is None else ""
        mistakes.add(field, f"must be a text, a finite number, true or false{hint}")
    elif _UNREADABLE.search(text):
        mistakes.add(field, "must not contain NUL or lone surrogates")
    return text or ""


def _read_number(value: Any, field: str, mistakes: Mistakes) -> Decimal:
    text = canonical_text(value) if not isinstance(value, bool) else None
    if text is None or len(text) > MAX_NUMBER_CHARS or not _NUMERIC.fullmatch(text):
        mistakes.add(field, "must be a finite number, or a text that is one")
        return Decimal(0)
    return Decimal(text)


def canonical_text(value: Any) -> str | None:
    """Return *value* as the text by which equality compares, None if it has none.

    1, 1.0 and "1" are the same, and so are true and "true" (docs/analyses.md).
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float) and math.isfinite(value):
        text = format(Decimal(repr(value)), "f")
        text = text.rstrip("0").rstrip(".") if "." in text else text
        return "0" if text == "-0" else text
    return None
