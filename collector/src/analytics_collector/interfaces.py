"""What the stages need from the outside, as small protocols; `assemble` chooses who serves them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from analytics_collector.model import ApiKey, EventRow


class RowsRefused(Exception):
    """The store can't hold at least one of the rows, whatever the time."""


class EventStore(Protocol):
    """Keeps events for good."""

    async def append(self, rows: Sequence[EventRow]) -> list[int]:
        """Commit *rows* in one transaction; return the positions of those that were there before.

        No two rows may have the same project and message id. Raises `RowsRefused` if a row can't
        be stored at all, and `StoreUnavailable` if the store did not confirm.
        """
        ...


class KeyStore(Protocol):
    """Knows the API keys by their digests."""

    async def find_key(self, digest: bytes) -> ApiKey | None:
        """Return the valid key with *digest*: neither revoked nor expired; or None.

        Raises `StoreUnavailable`.
        """
        ...
