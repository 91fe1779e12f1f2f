"""posthog."""

from __future__ import annotations

from typing import Any

from posthog import Posthog


class Adapter:
    def __init__(self, url: str, folder: str, queue_size: int | None) -> None:
        limit = {} if queue_size is None else {"max_queue_size": queue_size}
        self._client = Posthog("bench", host=url, **limit)

    def track(self, properties: dict[str, Any]) -> bool:
        taken = self._client.capture(
            "checkout_completed", distinct_id="user-1", properties=properties
        )
        return taken is not None

    def flush(self) -> None:
        self._client.flush()

    def shutdown(self) -> None:
        self._client.shutdown()
