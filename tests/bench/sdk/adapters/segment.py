"""segment-analytics-python."""

from __future__ import annotations

from typing import Any

from segment.analytics.client import Client


class Adapter:
    def __init__(self, url: str, folder: str, queue_size: int | None) -> None:
        limit = {} if queue_size is None else {"max_queue_size": queue_size}
        self._client = Client("bench", host=url, **limit)

    def track(self, properties: dict[str, Any]) -> bool:
        is_taken, _ = self._client.track(
            user_id="user-1", event="checkout_completed", properties=properties
        )
        return is_taken

    def flush(self) -> None:
        self._client.flush()

    def shutdown(self) -> None:
        self._client.shutdown()
