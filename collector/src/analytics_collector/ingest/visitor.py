"""Who the visitor is, for pages whose browser forgets what scripts store. Pure.

Such a page sends its first events without an `anonymousId`, and goes by the one in the answer. A
page that names one is believed: it may be of a visitor who just became another one.
"""

from __future__ import annotations

from typing import Final
from uuid import UUID, uuid5

from analytics_collector.model import EventRow, ValidBatch

_NAMESPACE: Final = UUID("7f6d3c1e-2b1a-5c58-8f0e-3a0c9d6b4e21")
_ANONYMOUS_ID: Final = EventRow._fields.index("anonymous_id")


def with_visitor(batch: ValidBatch, remembered_id: str) -> tuple[ValidBatch, str]:
    """Return *batch*, in which events that named nobody are the visitor's, and who that is.

    The first that an event names, else *remembered_id*, else somebody new. *batch* has events.
    """
    named = next((row.anonymous_id for row in batch.rows if row.anonymous_id), None)
    visitor = named or remembered_id or _new_id(batch.rows[0])
    rows = [row if row.anonymous_id or row.user_id else _by(row, visitor) for row in batch.rows]
    return ValidBatch(rows, batch.indexes, batch.events, batch.rejected), visitor


def _new_id(first: EventRow) -> str:
    # The same when the answer was lost and the batch comes again.
    return str(uuid5(_NAMESPACE, f"{first.project_id} {first.message_id}"))


def _by(row: EventRow, visitor: str) -> EventRow:
    return EventRow._make((*row[:_ANONYMOUS_ID], visitor, *row[_ANONYMOUS_ID + 1 :]))
