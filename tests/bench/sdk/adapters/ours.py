"""analytics-sdk, this project's own."""

from __future__ import annotations

from typing import Any

import analytics_sdk


class Adapter:
    def __init__(
        self, url: str, folder: str, queue_size: int | None, durable: bool | str = False
    ) -> None:
        self._client = analytics_sdk.Client(
            "ak_live_bench", url, max_queue_size=queue_size, spool_dir=folder, durable=durable
        )

    def track(self, properties: dict[str, Any]) -> bool:
        return self._client.track("checkout_completed", properties, user_id="user-1")

    def flush(self) -> None:
        self._client.flush()

    def shutdown(self) -> None:
        self._client.shutdown()
