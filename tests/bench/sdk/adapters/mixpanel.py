"""mixpanel: by default one request per call; with its BufferedConsumer one per 50 calls."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from mixpanel import BufferedConsumer, Consumer, Mixpanel, MixpanelException


class Adapter:
    def __init__(
        self,
        url: str,
        folder: str,
        queue_size: int | None,
        is_buffered: bool = False,
        is_idle: bool = False,
    ) -> None:
        self._buffered = BufferedConsumer(events_url=f"{url}/track") if is_buffered else None
        consumer = self._buffered or Consumer(events_url=f"{url}/track")
        # It has no worker: without its requests is as idle as it gets.
        self._client = Mixpanel("bench", _Nowhere() if is_idle else consumer)

    def track(self, properties: dict[str, Any]) -> bool:
        try:
            self._client.track("user-1", "checkout_completed", properties)
        except MixpanelException:
            return False
        return True

    def flush(self) -> None:
        if self._buffered is not None:
            with suppress(MixpanelException):
                self._buffered.flush()

    def shutdown(self) -> None:
        self.flush()


class _Nowhere:
    def send(self, *_: object) -> None:
        """Drop the event."""
