"""No SDK, but what none can do without: make JSON of the whole event, and put it somewhere."""

from __future__ import annotations

from collections import deque
from typing import Any

import orjson


class Adapter:
    def __init__(self, url: str, folder: str, queue_size: int | None) -> None:
        self._queue: deque[bytes] = deque()

    def track(self, properties: dict[str, Any]) -> bool:
        event = {
            "type": "track",
            "messageId": "01939fb1-5c0b-7f3e-9d52-5f1d2b1a6f10",
            "name": "checkout_completed",
            "userId": "user-1",
            "timestamp": "2026-11-20T10:00:31.120Z",
            "properties": properties,
            "context": {"library": {"name": "analytics-sdk-python", "version": "0.1.0"}},
        }
        # Copied, for what orjson returns sits in the block of 1 KiB that it was written in, and to
        # touch so much new memory for every event costs more than all the rest.
        self._queue.append(b"%b" % orjson.dumps(event))
        return True

    def flush(self) -> None:
        self._queue.clear()

    def shutdown(self) -> None:
        self.flush()
