"""Stands in for `segment.analytics` of segment-analytics-python 2.x.

    import analytics_sdk.compat.segment as analytics

    analytics.write_key = "ak_live_..."
    analytics.host = "http://127.0.0.1:8000"
    analytics.track("u-1", "checkout_completed", {"amount": 42})

The settings are read at the first call, which makes `default_client`. While `write_key` is None
the functions use the default client of `analytics_sdk` instead, so that a program may call both.
What differs from Segment's library stands in docs/migrating.md.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeAlias, TypeVar

import analytics_sdk
from analytics_sdk.compat._segment_message import MESSAGE_ID_NAMESPACE, renamed, translate
from analytics_sdk.compat._segment_settings import OnError, make_client
from analytics_sdk.context import Identifier
from analytics_sdk.errors import ConfigError, call_user_code
from analytics_sdk.logs import QuietLogger

__all__ = [
    "MESSAGE_ID_NAMESPACE",
    "Client",
    "OnError",
    "Result",
    "alias",
    "debug",
    "default_client",
    "flush",
    "group",
    "gzip",
    "host",
    "identify",
    "join",
    "log_handler",
    "max_queue_size",
    "max_retries",
    "oauth_auth_server",
    "oauth_client_id",
    "oauth_client_key",
    "oauth_key_id",
    "oauth_scope",
    "on_error",
    "page",
    "screen",
    "send",
    "shutdown",
    "sync_mode",
    "timeout",
    "track",
    "write_key",
]

Result: TypeAlias = "tuple[bool, dict[str, Any]]"

P = ParamSpec("P")
T = TypeVar("T")

write_key: str | None = None
"""The project's key, `ak_live_...`; None: use the default client of `analytics_sdk`."""
host: str | None = None
"""The address of the collector; None: what `ANALYTICS_API_URL` says."""
on_error: OnError | None = None
"""Called with the error and a list of one event for each that the collector refused."""
debug: bool = False
"""Print events, and raise MisuseError for a call that makes none."""
log_handler: logging.Handler | None = None
"""Added to the logger `analytics_sdk`."""
send: bool = True
"""False: take everything and send nothing."""
sync_mode: bool = False
"""Wait in each call until the event is delivered, `timeout` at most."""
max_queue_size: int = 10_000
"""Events in memory."""
gzip: bool = False
"""Without effect: bodies above 1 KiB are always compressed."""
timeout: float = 15
"""Seconds for one request, and for `flush()`."""
max_retries: int = 10
"""Without effect: what can be sent again is, until it is delivered."""
oauth_client_id: str | None = None
"""Not supported: ConfigError."""
oauth_client_key: str | None = None
"""Not supported: ConfigError."""
oauth_key_id: str | None = None
"""Not supported: ConfigError."""
oauth_auth_server: str = "https://oauth2.segment.io"
"""Without effect."""
oauth_scope: str = "tracking_api:write"
"""Without effect."""


class Client:
    """
    Stands in for `segment.analytics.Client`.

    Makes a client from these settings, or wraps the `analytics_sdk.Client` that *client* gives; the
    settings but for *send*, *sync_mode* and *timeout* (seconds) mean nothing then. Raises
    ConfigError, which names every mistake at once.
    """

    def __init__(
        self,
        write_key: str | None = None,
        host: str | None = None,
        debug: bool = False,
        max_queue_size: int = 10_000,
        send: bool = True,
        on_error: OnError | None = None,
        gzip: bool = False,
        max_retries: int = 10,
        sync_mode: bool = False,
        timeout: float = 15,
        proxies: object = None,
        thread: int = 1,
        upload_size: int = 100,
        upload_interval: float = 0.5,
        log_handler: logging.Handler | None = None,
        oauth_client_id: str | None = None,
        oauth_client_key: str | None = None,
        oauth_key_id: str | None = None,
        oauth_auth_server: str = "https://oauth2.segment.io",
        oauth_scope: str = "tracking_api:write",
        max_total_backoff_duration: float = 43_200,
        max_rate_limit_duration: float = 1_800,
        *,
        client: analytics_sdk.Client | None = None,
    ) -> None:
        self.send = send
        self.sync_mode = sync_mode
        self.timeout = timeout
        if client is None:
            client = make_client(
                write_key=write_key,
                host=host,
                debug=debug,
                max_queue_size=max_queue_size,
                send=send,
                on_error=on_error,
                timeout=timeout,
                upload_size=upload_size,
                upload_interval=upload_interval,
                proxies=proxies,
                oauth=oauth_client_id or oauth_client_key or oauth_key_id,
            )
        self.client = client
        if log_handler is not None:
            logging.getLogger("analytics_sdk").addHandler(log_handler)

    def track(
        self,
        user_id: Identifier | None = None,
        event: str | None = None,
        properties: Mapping[str, Any] | None = None,
        context: Mapping[str, Any] | None = None,
        timestamp: datetime | None = None,
        anonymous_id: Identifier | None = None,
        integrations: Mapping[str, Any] | None = None,
        message_id: object = None,
    ) -> Result:
        """
        Take an event: somebody did something.

        Returns whether it was taken, and the message as Segment's library returns it. Never raises
        (but with `debug`), and never waits (but with `sync_mode`).
        """
        return self._take(
            "track", {"event": event, "properties": properties},
            user_id, anonymous_id, context, timestamp, integrations, message_id,
        )  # fmt: skip

    def identify(
        self,
        user_id: Identifier | None = None,
        traits: Mapping[str, Any] | None = None,
        context: Mapping[str, Any] | None = None,
        timestamp: datetime | None = None,
        anonymous_id: Identifier | None = None,
        integrations: Mapping[str, Any] | None = None,
        message_id: object = None,
    ) -> Result:
        """Take an event: this is who the user is; needs *user_id*. Otherwise as `track()`."""
        return self._take(
            "identify", {"traits": traits},
            user_id, anonymous_id, context, timestamp, integrations, message_id,
        )  # fmt: skip

    def group(
        self,
        user_id: Identifier | None = None,
        group_id: Identifier | None = None,
        traits: Mapping[str, Any] | None = None,
        context: Mapping[str, Any] | None = None,
        timestamp: datetime | None = None,
        anonymous_id: Identifier | None = None,
        integrations: Mapping[str, Any] | None = None,
        message_id: object = None,
    ) -> Result:
        """Take an event: the user belongs to this company or team. Otherwise as `track()`."""
        return self._take(
            "group", {"groupId": group_id, "traits": traits},
            user_id, anonymous_id, context, timestamp, integrations, message_id,
        )  # fmt: skip

    def alias(
        self,
        previous_id: Identifier | None = None,
        user_id: Identifier | None = None,
        context: Mapping[str, Any] | None = None,
        timestamp: datetime | None = None,
        integrations: Mapping[str, Any] | None = None,
        message_id: object = None,
    ) -> Result:
        """Take an event: *user_id* was known as *previous_id* before. Otherwise as `track()`."""
        return self._take(
            "alias", {"previousId": previous_id},
            user_id, None, context, timestamp, integrations, message_id,
        )  # fmt: skip

    def page(
        self,
        user_id: Identifier | None = None,
        category: str | None = None,
        name: str | None = None,
        properties: Mapping[str, Any] | None = None,
        context: Mapping[str, Any] | None = None,
        timestamp: datetime | None = None,
        anonymous_id: Identifier | None = None,
        integrations: Mapping[str, Any] | None = None,
        message_id: object = None,
    ) -> Result:
        """Take an event: somebody saw a page; *category* is a property. Otherwise as `track()`."""
        return self._take(
            "page", {"category": category, "name": name, "properties": properties},
            user_id, anonymous_id, context, timestamp, integrations, message_id,
        )  # fmt: skip

    def screen(
        self,
        user_id: Identifier | None = None,
        category: str | None = None,
        name: str | None = None,
        properties: Mapping[str, Any] | None = None,
        context: Mapping[str, Any] | None = None,
        timestamp: datetime | None = None,
        anonymous_id: Identifier | None = None,
        integrations: Mapping[str, Any] | None = None,
        message_id: object = None,
    ) -> Result:
        """Take an event: somebody saw a screen of an app. Otherwise as `page()`."""
        return self._take(
            "screen", {"category": category, "name": name, "properties": properties},
            user_id, anonymous_id, context, timestamp, integrations, message_id,
        )  # fmt: skip

    def flush(self) -> bool:
        """Send what waits, and wait for it, `timeout` at most; return whether all is delivered."""
        return self.client.flush(self.timeout)

    def join(self) -> bool:
        """Stop for good; what can't be delivered in 2 s waits on disk. Return whether none does."""
        return self.client.shutdown()

    def shutdown(self) -> bool:
        """Do `flush()`, then `join()`."""
        self.flush()
        return self.join()

    def _take(
        self,
        kind: str,
        parts: Mapping[str, Any],
        user_id: Any,
        anonymous_id: Any,
        context: Any,
        timestamp: Any,
        integrations: Any,
        message_id: Any,
    ) -> Result:
        """Make an event of a call; return whether it was taken, and Segment's message of it."""
        message = {
            "type": kind,
            "userId": user_id,
            "anonymousId": anonymous_id,
            **parts,
            "context": context,
            "timestamp": timestamp,
            "integrations": integrations,
            "messageId": message_id,
        }
        translated, _ = call_user_code(translate, message)
        # What can't be translated goes on as it is: the client knows how to refuse it.
        message, given = translated or (message, renamed(message))
        is_taken = True
        if self.send:
            is_taken = getattr(self.client, kind)(**given)
            if self.sync_mode and is_taken:
                self.flush()
        if isinstance(message["timestamp"], datetime):
            iso_format = message["timestamp"].isoformat
            message["timestamp"], _ = call_user_code(iso_format, timespec="milliseconds")
        return is_taken, message


default_client: Client | None = None
"""What the functions use, once the first call made it. Yours to replace, or to set to None."""

_log = QuietLogger(__name__)


class _Nobody:
    """The client while the settings are wrong: takes nothing."""

    def refuse(self, **_: Any) -> bool:
        return False

    def has_nothing(self, timeout_s: float | None = None) -> bool:
        return True

    track = identify = group = alias = page = screen = refuse
    flush = shutdown = has_nothing


def _client() -> Client:
    """Return the default client; if the settings make none, one that does without."""
    global default_client  # noqa: PLW0603 - as in Segment's library, where programs rely on it
    if default_client is not None:
        return default_client
    try:
        if write_key is not None:
            # Two threads may be here at once. The client of one is let go, and delivers all the
            # same.
            default_client = Client(
                write_key,
                host=host,
                debug=debug,
                max_queue_size=max_queue_size,
                send=send,
                on_error=on_error,
                sync_mode=sync_mode,
                timeout=timeout,
                log_handler=log_handler,
                oauth_client_id=oauth_client_id,
                oauth_client_key=oauth_client_key,
                oauth_key_id=oauth_key_id,
            )
            return default_client
        other: Any = analytics_sdk
    except ConfigError as error:
        _log.warning("bad_settings", str(error))
        other = _Nobody()
    return Client(send=send, sync_mode=sync_mode, timeout=timeout, client=other)


def _of_default_client(method: Callable[Concatenate[Client, P], T]) -> Callable[P, T]:
    """Return *method* as a function of the default client."""

    @wraps(method)
    def function(*args: P.args, **kwargs: P.kwargs) -> T:
        return method(_client(), *args, **kwargs)

    signature = inspect.signature(method)
    function.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=list(signature.parameters.values())[1:]
    )
    # Else a tool that looks behind wrappers shows the method, with its `self`.
    del function.__wrapped__
    return function


track = _of_default_client(Client.track)
identify = _of_default_client(Client.identify)
group = _of_default_client(Client.group)
alias = _of_default_client(Client.alias)
page = _of_default_client(Client.page)
screen = _of_default_client(Client.screen)
flush = _of_default_client(Client.flush)
join = _of_default_client(Client.join)
shutdown = _of_default_client(Client.shutdown)
