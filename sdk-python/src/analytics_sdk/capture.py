"""The door: turn a call into an event that the worker has, or into a counted refusal.

Nothing gets out of here but True and False: this is where "never raises" is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from analytics_sdk._limits import WARN_EVENT_BYTES
from analytics_sdk.config import BeforeSend, Config
from analytics_sdk.errors import MisuseError, call_user_code
from analytics_sdk.event import build, is_sampled
from analytics_sdk.logs import QuietLogger, place_of
from analytics_sdk.values import encode
from analytics_sdk.worker import Worker


class Capture:
    """Takes calls for one client."""

    def __init__(self, config: Config, worker: Worker) -> None:
        self._config = config
        self._worker = worker
        self._log = QuietLogger(__name__)

    def take(self, kind: str, **arguments: Any) -> bool:
        """Return whether the event was taken; a False is counted, with `debug` misuse raises."""
        worker = self._worker
        worker.check_process()
        # The guard at the door. What a user tracks may raise anything, at any touch.
        try:
            reason = self._refusal_of(kind, arguments)
        except MisuseError as refusal:
            if self._config.debug:
                raise
            reason = refusal.reason
            self._log.warning(reason, str(refusal))
        except Exception as error:
            if self._config.debug:
                raise
            reason = "internal"
            self._log.warning(
                reason,
                "An event was refused for an error in a tracked object or in the SDK",
                failure=type(error).__name__,
                place=place_of(error),
            )
        if reason is not None:
            worker.counters.refuse(reason)
        return reason is None

    def _refusal_of(self, kind: str, arguments: dict[str, Any]) -> str | None:
        """Hand the event over and return None, or the word for why it is not wanted."""
        config = self._config
        if not config.enabled:
            return "disabled"
        event = build(kind, **arguments)
        if config.sample_rate < 1 and not is_sampled(event, config.sample_rate):
            return "sampled_out"
        encoded, mended = encode(event)
        if config.before_send is not None:
            changed = self._before_send(config.before_send, encoded)
            if changed is None:
                return "before_send"
            encoded, more = changed
            mended = (*mended, *more)
        if len(encoded) > WARN_EVENT_BYTES:
            self._log.warning(
                "large_event", "An event has more than 32 KiB", size_bytes=len(encoded)
            )
        reason = self._worker.put(encoded)
        if mended and reason is None:
            self._worker.counters.repair(mended)
        return reason

    def _before_send(self, hook: BeforeSend, encoded: bytes) -> tuple[bytes, Sequence[str]] | None:
        """Return the event as *hook* wants it, or None if it does not want it."""
        # Made from the bytes, so that the hook can't change what belongs to the caller.
        event = orjson.loads(encoded)
        identity = {"type": event["type"], "messageId": event["messageId"]}
        changed, error = call_user_code(hook, event)
        if error is None and changed is None:
            return None
        if not isinstance(changed, dict):
            self._log.warning(
                "before_send",
                "before_send failed; the event goes unchanged",
                failure=type(error or changed).__name__,
            )
            return encoded, ["before_send"]
        # Without its id a retry would store the event twice.
        return encode({**changed, **identity})
