"""The object a program tracks with. Joins the parts and decides nothing."""

from __future__ import annotations

import weakref
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from analytics_sdk.capture import Capture
from analytics_sdk.config import BeforeSend, Durable, OnError, load
from analytics_sdk.context import Identifier
from analytics_sdk.operation import Category, Operation
from analytics_sdk.stats import Stats
from analytics_sdk.worker import Worker

if TYPE_CHECKING:
    import os

    import httpx


class Client:
    """
    Takes events and delivers them to the collector in the background.

    What is None is taken from the environment (`ANALYTICS_API_KEY`, `ANALYTICS_BATCH_SIZE`, ...),
    else from the defaults that the README lists.

    Raises ConfigError, which names every mistake at once.
    """

    def __init__(
        self,
        api_key: str | None = None,
        api_url: str | None = None,
        *,
        batch_size: int | None = None,
        flush_interval_s: float | None = None,
        max_queue_size: int | None = None,
        timeout_s: float | None = None,
        shutdown_timeout_s: float | None = None,
        durable: Durable | None = None,
        spool_dir: str | os.PathLike[str] | None = None,
        spool_max_bytes: int | None = None,
        before_send: BeforeSend | None = None,
        on_error: OnError | None = None,
        sample_rate: float | None = None,
        super_properties: Mapping[str, Any] | None = None,
        remember_identity: bool | None = None,
        allow_properties: Collection[str] | None = None,
        deny_properties: Collection[str] | None = None,
        allow_keys: Collection[str] | None = None,
        deny_keys: Collection[str] | None = None,
        handle_sigterm: bool | None = None,
        enabled: bool | None = None,
        debug: bool | None = None,
        http_transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._config = load(
            {
                "api_key": api_key,
                "api_url": api_url,
                "batch_size": batch_size,
                "flush_interval_s": flush_interval_s,
                "max_queue_size": max_queue_size,
                "timeout_s": timeout_s,
                "shutdown_timeout_s": shutdown_timeout_s,
                "durable": durable,
                "spool_dir": spool_dir,
                "spool_max_bytes": spool_max_bytes,
                "before_send": before_send,
                "on_error": on_error,
                "sample_rate": sample_rate,
                "super_properties": super_properties,
                "remember_identity": remember_identity,
                "allow_properties": allow_properties,
                "deny_properties": deny_properties,
                "allow_keys": allow_keys,
                "deny_keys": deny_keys,
                "handle_sigterm": handle_sigterm,
                "enabled": enabled,
                "debug": debug,
            }
        )
        self._worker = Worker(self._config, http_transport)
        self._capture = Capture(self._config, self._worker)
        # A client that nobody holds any more delivers what it took, and lets its thread end.
        weakref.finalize(self, self._worker.retire).atexit = False

    def _pass_on(self, encoded: bytes) -> bytes | None:
        """For integrations: *encoded*, JSON shaped as an event, without what the lists forbid.

        None while the client is not enabled, or opted out.
        """
        return self._capture.pass_on(encoded)

    def __repr__(self) -> str:
        return f"Client(api_url={self._config.api_url!r})"

    def track(
        self,
        name: str,
        properties: Mapping[str, Any] | None = None,
        *,
        user_id: Identifier | None = None,
        anonymous_id: Identifier | None = None,
        session_id: Identifier | None = None,
        timestamp: datetime | None = None,
        context: Mapping[str, Any] | None = None,
        message_id: str | UUID | None = None,
    ) -> bool:
        """
        Take an event: somebody did something.

        *timestamp* is now unless given; one without an offset is local time. *message_id* is new
        unless given; the collector stores an event once for each. Returns whether the event was
        taken; `stats().refused` counts why not. Never raises (but with `debug`), never waits.
        """
        # By place, for this call is the one that is made most.
        return self._capture.take(
            "track", name, properties, None, user_id, anonymous_id, session_id, None, None,
            timestamp, context, message_id,
        )  # fmt: skip

    def identify(
        self,
        user_id: Identifier,
        traits: Mapping[str, Any] | None = None,
        *,
        anonymous_id: Identifier | None = None,
        session_id: Identifier | None = None,
        timestamp: datetime | None = None,
        context: Mapping[str, Any] | None = None,
        message_id: str | UUID | None = None,
    ) -> bool:
        """Take an event: this is who the user is. Otherwise as `track()`."""
        return self._capture.take(
            "identify",
            traits=traits,
            user_id=user_id,
            anonymous_id=anonymous_id,
            session_id=session_id,
            timestamp=timestamp,
            context=context,
            message_id=message_id,
        )

    def page(
        self,
        name: str | None = None,
        properties: Mapping[str, Any] | None = None,
        *,
        user_id: Identifier | None = None,
        anonymous_id: Identifier | None = None,
        session_id: Identifier | None = None,
        timestamp: datetime | None = None,
        context: Mapping[str, Any] | None = None,
        message_id: str | UUID | None = None,
    ) -> bool:
        """Take an event: somebody saw a page. Otherwise as `track()`."""
        return self._capture.take(
            "page",
            name=name,
            properties=properties,
            user_id=user_id,
            anonymous_id=anonymous_id,
            session_id=session_id,
            timestamp=timestamp,
            context=context,
            message_id=message_id,
        )

    def screen(
        self,
        name: str | None = None,
        properties: Mapping[str, Any] | None = None,
        *,
        user_id: Identifier | None = None,
        anonymous_id: Identifier | None = None,
        session_id: Identifier | None = None,
        timestamp: datetime | None = None,
        context: Mapping[str, Any] | None = None,
        message_id: str | UUID | None = None,
    ) -> bool:
        """Take an event: somebody saw a screen of an app. Otherwise as `track()`."""
        return self._capture.take(
            "screen",
            name=name,
            properties=properties,
            user_id=user_id,
            anonymous_id=anonymous_id,
            session_id=session_id,
            timestamp=timestamp,
            context=context,
            message_id=message_id,
        )

    def group(
        self,
        group_id: Identifier,
        traits: Mapping[str, Any] | None = None,
        *,
        user_id: Identifier | None = None,
        anonymous_id: Identifier | None = None,
        session_id: Identifier | None = None,
        timestamp: datetime | None = None,
        context: Mapping[str, Any] | None = None,
        message_id: str | UUID | None = None,
    ) -> bool:
        """Take an event: the user belongs to this company or team. Otherwise as `track()`."""
        return self._capture.take(
            "group",
            group_id=group_id,
            traits=traits,
            user_id=user_id,
            anonymous_id=anonymous_id,
            session_id=session_id,
            timestamp=timestamp,
            context=context,
            message_id=message_id,
        )

    def alias(
        self,
        previous_id: Identifier,
        user_id: Identifier,
        *,
        anonymous_id: Identifier | None = None,
        session_id: Identifier | None = None,
        timestamp: datetime | None = None,
        context: Mapping[str, Any] | None = None,
        message_id: str | UUID | None = None,
    ) -> bool:
        """Take an event: *user_id* was known as *previous_id* before. Otherwise as `track()`."""
        return self._capture.take(
            "alias",
            previous_id=previous_id,
            user_id=user_id,
            anonymous_id=anonymous_id,
            session_id=session_id,
            timestamp=timestamp,
            context=context,
            message_id=message_id,
        )

    def operation(
        self,
        name: str,
        *,
        category: Category = "SYSTEM_EVENT",
        properties: Mapping[str, Any] | None = None,
    ) -> Operation:
        """
        Return a block (or decorator) that tracks one event when it ends.

            with client.operation("invoice_rendered", properties={"pages": 3}):
                ...

        The event is called *name*; its properties are those given and `status` (SUCCESS, or FAILURE
        if the block raised), `durationMs` and `errorType`. What the block raises goes on.
        """
        return Operation(self.track, name, category, properties)

    def register(self, properties: Mapping[str, Any]) -> None:
        """Add *properties* to every track, page and screen event from now on, in all threads."""
        self._capture.register(properties)

    def unregister(self, *names: str) -> None:
        """Take back what `register()` added."""
        self._capture.ambient.unregister(names)

    def reset(self) -> None:
        """
        Forget what was registered, and the user that `remember_identity` keeps.

        The super properties of the settings stay.
        """
        self._capture.ambient.reset()

    def opt_out(self) -> None:
        """Take no more events, counted as refused; those taken before are still delivered."""
        self._capture.opt(out=True)

    def opt_in(self) -> None:
        """Take events again."""
        self._capture.opt(out=False)

    def flush(self, timeout_s: float | None = None) -> bool:
        """
        Send what waits, and wait for it, *timeout_s* (10 s unless set otherwise) at most.

        Ends a pause after a failure, but not one that the collector asked for. Returns True if
        every event taken before has its outcome: delivered, or rejected and counted.
        """
        self._worker.check_process()
        return self._worker.flush(self._config.timeout_s if timeout_s is None else timeout_s)

    async def aflush(self, timeout_s: float | None = None) -> bool:
        """Do what `flush()` does, without keeping the event loop."""
        # Whoever can await has imported it; for all others it would double our import time.
        import asyncio  # noqa: PLC0415

        return await asyncio.to_thread(self.flush, timeout_s)

    def recover(self, timeout_s: float | None = None) -> bool:
        """
        Deliver what processes that ended have left on disk; wait *timeout_s* (10 s) at most.

        A client does so by itself once it has tracked something; this is for programs that only
        clean up. Returns True if nothing of theirs is left.
        """
        self._worker.check_process()
        return self._worker.recover(self._config.timeout_s if timeout_s is None else timeout_s)

    def shutdown(self, timeout_s: float | None = None) -> bool:
        """
        Deliver what waits for *timeout_s* (2 s unless set otherwise) at most, and stop for good.

        What is left then stays on disk for the next process; without a spool it is counted as
        dropped. Returns True if nothing was left. Called at exit, and harmless when called again.
        """
        self._worker.check_process()
        default_s = self._config.shutdown_timeout_s
        return self._worker.shutdown(default_s if timeout_s is None else timeout_s)

    def stats(self) -> Stats:
        """Return what became of every event so far."""
        self._worker.check_process()
        return self._worker.outbox.stats()
