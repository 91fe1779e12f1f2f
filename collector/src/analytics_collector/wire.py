"""How names and times are written in answers."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any


def wire_name(name: str) -> str:
    """Return *name*, a column or a member, as it goes over the wire: project_id is projectId."""
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def wire_time(instant: datetime | None) -> str | None:
    """Return *instant* as it goes over the wire, such as 2026-11-20T10:00:31.120Z."""
    if instant is None:
        return None
    return instant.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def wire_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return *row* with its names and times as they go over the wire, those in lists as well.

    Documents in it stay as they are: their names are their authors'.
    """
    return {wire_name(name): _wire_value(value) for name, value in row.items()}


def _wire_value(value: Any) -> Any:
    if isinstance(value, datetime):
        return wire_time(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, list):
        return [wire_row(entry) if isinstance(entry, Mapping) else entry for entry in value]
    return value
