"""The door: turn a call into an event that the worker has, or into a counted refusal.

Nothing gets out of here but True and False: this is where "never raises" is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import getpid
from typing import Any

import orjson

from analytics_sdk._limits import WARN_EVENT_BYTES
from analytics_sdk.config import BeforeSend, Config
from analytics_sdk.errors import MisuseError, call_user_code
from analytics_sdk.event import build, is_sampled
from analytics_sdk.logs import QuietLogger, facts_of
from analytics_sdk.values import encode
from analytics_sdk.worker import Worker


class Capture:
    """Takes calls for one client."""

    def __init__(self, config: Config, worker: Worker) -> None:
        self._config = config
        self._worker = worker
        self._log = QuietLogger(__name__)

    def take(
        self,
        kind: str,
        name: Any = None,
        properties: Any = None,
        traits: Any = None,
        user_id: Any = None,
        anonymous_id: Any = None,
        session_id: Any = None,
        group_id: Any = None,
        previous_id: Any = None,
        timestamp: Any = None,
        context: Any = None,
        message_id: Any = None,
    ) -> bool:
        """
        Return whether the event was taken; a False is counted, with `debug` misuse raises.

        The arguments are named one by one and passed on by place: to collect them in a dict on
        the way would be a good part of what a call costs.
        """
        worker = self._worker
        if worker.pid != getpid():
            worker.start_afresh()
        # The guard at the door. What a user tracks may raise anything, at any touch.
        try:
            reason: str | None = "disabled"
            if self._config.enabled:
                event = build(
                    kind, name, properties, traits, user_id, anonymous_id, session_id, group_id,
                    previous_id, timestamp, context, message_id,
                )  # fmt: skip
                reason = self._hand_over(event)
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
                **facts_of(error),
            )
        if reason is not None:
            worker.counters.refuse(reason)
        return reason is None

    def _hand_over(self, event: dict[str, Any]) -> str | None:
        """Give the event to the worker and return None, or the word for why not."""
        config = self._config
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
        """Return the event as *hook* wants it, None if it does not; MisuseError if it fails."""
        # Made from the bytes, so that the hook can't change what belongs to the caller.
        event = orjson.loads(encoded)
        identity = {"type": event["type"], "messageId": event["messageId"]}
        changed, error = call_user_code(hook, event)
        if error is not None or not (changed is None or isinstance(changed, dict)):
            # A hook is there to take out what must not go: without it the event may not go either.
            raise MisuseError(
                "before_send_failed", "before_send failed, so the event was kept back"
            )
        # Without its id a retry would store the event twice.
        return None if changed is None else encode({**changed, **identity})
