"""The door: turn a call into an event that the worker has, or into a counted refusal.

Nothing gets out of here but True and False: this is where "never raises" is kept.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from os import getpid
from typing import Any

import orjson

from analytics_sdk._limits import WARN_EVENT_BYTES
from analytics_sdk.ambient import Ambient
from analytics_sdk.config import BeforeSend, Config
from analytics_sdk.context import current
from analytics_sdk.errors import MisuseError, call_user_code
from analytics_sdk.event import build, is_sampled
from analytics_sdk.logs import QuietLogger, facts_of
from analytics_sdk.values import encode, encode_foreign
from analytics_sdk.worker import Worker


class Capture:
    """Takes calls for one client."""

    def __init__(self, config: Config, worker: Worker) -> None:
        self._config = config
        self._worker = worker
        self._log = QuietLogger(__name__)
        self.ambient = Ambient(config.super_properties, remembers=config.remember_identity)
        # Why no event is taken at all, if so.
        self._shut = None if config.enabled else "disabled"
        self._has_hooks = bool(
            config.sample_rate < 1 or config.before_send or config.scrubber or config.debug
        )

    def opt(self, *, out: bool) -> None:
        """Take no more events, or take them again."""
        if self._config.enabled:
            self._shut = "opted_out" if out else None

    def register(self, properties: Any) -> None:
        """Add *properties* to the super properties; with `debug` misuse raises."""
        if isinstance(properties, Mapping):
            self.ambient.register(properties)
        elif self._config.debug:
            raise MisuseError("invalid_properties", "properties must be a dict.")

    def take(  # noqa: C901 - every call of it costs the caller
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
            worker.check_process()
        # The guard at the door. What a user tracks may raise anything, at any touch.
        try:
            if (reason := self._shut) is None:
                ambient, scope = self.ambient, current.get()
                if scope is not None or ambient.is_used:
                    properties, user_id, anonymous_id, session_id, context = ambient.complete(
                        scope, kind, properties, user_id, anonymous_id, session_id, context
                    )
                event = build(
                    kind, name, properties, traits, user_id, anonymous_id, session_id, group_id,
                    previous_id, timestamp, context, message_id,
                )  # fmt: skip
                encoded, mended = encode(event)
                if self._has_hooks:
                    encoded, mended = self._run_hooks(event, encoded, mended)
                if len(encoded) > WARN_EVENT_BYTES:
                    self._log.warning(
                        "large_event", "An event has more than 32 KiB", size_bytes=len(encoded)
                    )
                # A copy, for what orjson returns keeps the room it was written in: 4 KiB an event.
                reason = worker.put(b"%b" % encoded)
                if mended and reason is None:
                    worker.counters.repair(mended)
        except _Withheld as verdict:
            reason = verdict.reason
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
        if reason is None:
            return True
        worker.counters.refuse(reason)
        return False

    def pass_on(self, encoded: bytes) -> bytes | None:
        """Return what of *encoded*, shaped as an event, may go to others; None if no event may."""
        if self._shut is not None:
            return None
        if self._config.scrubber:
            encoded, _ = encode(self._config.scrubber.scrub(orjson.loads(encoded)))
        return encoded

    def _run_hooks(
        self, event: dict[str, Any], encoded: bytes, mended: Sequence[str]
    ) -> tuple[bytes, Sequence[str]]:
        """Return the event as the settings want it; _Withheld if they do not want it at all."""
        config = self._config
        if config.sample_rate < 1 and not is_sampled(event, config.sample_rate):
            raise _Withheld("sampled_out")
        if config.before_send is not None:
            encoded, more = encode_foreign(self._before_send(config.before_send, encoded))
            mended = (*mended, *more)
        # Last, so that nothing a hook added gets past it.
        if config.scrubber:
            encoded, _ = encode(config.scrubber.scrub(orjson.loads(encoded)))
        if config.debug:
            print(f"analytics_sdk: {encoded.decode()}", file=sys.stderr)
        return encoded, mended

    def _before_send(self, hook: BeforeSend, encoded: bytes) -> dict[str, Any]:
        """Return the event as *hook* wants it; MisuseError if it fails."""
        # Made from the bytes, so that the hook can't change what belongs to the caller.
        event = orjson.loads(encoded)
        identity = {"type": event["type"], "messageId": event["messageId"]}
        changed, error = call_user_code(hook, event)
        if error is not None or not (changed is None or isinstance(changed, dict)):
            # A hook is there to take out what must not go: without it the event may not go either.
            raise MisuseError(
                "before_send_failed", "before_send failed, so the event was kept back"
            )
        if changed is None:
            raise _Withheld("before_send")
        # Without its id a retry would store the event twice.
        return {**changed, **identity}


class _Withheld(Exception):
    """The settings keep this event back."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)
