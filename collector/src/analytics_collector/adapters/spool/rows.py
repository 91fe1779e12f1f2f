"""Rows as bytes and back, for a spool. What an older version wrote can still be read."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import orjson

from analytics_collector.model import EventRow

# A new member of `EventRow` goes to its end and has a default, so that rows without it still fit.
_TIMES: Final = tuple(
    EventRow._fields.index(name) for name in ("timestamp", "received_at", "client_timestamp")
)


def encode_rows(rows: Sequence[EventRow]) -> bytes:
    """Return *rows* as one JSON array."""
    return orjson.dumps([tuple(row) for row in rows])


def decode_rows(payload: bytes) -> list[EventRow]:
    """Return the rows that `encode_rows` wrote."""
    return [_row(values) for values in orjson.loads(payload)]


def _row(values: list[Any]) -> EventRow:
    for place in _TIMES:
        if values[place] is not None:
            values[place] = datetime.fromisoformat(values[place])
    return EventRow(*values)
