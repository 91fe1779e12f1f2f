"""The settings of Segment's library: a client of ours from them, or what is wrong with them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

from analytics_sdk.client import Client
from analytics_sdk.errors import ConfigError, EventRejectedError, call_user_code

OnError: TypeAlias = Callable[[EventRejectedError, "list[dict[str, Any]]"], object]

SEGMENT_KEY = re.compile(r"[0-9A-Za-z]{32}")
SEGMENT_HOST = re.compile(r"(.+\.)?segment(apis)?\.(io|com)")
# How our settings are called there, for the mistakes that ConfigError names.
NAMES: Final = {
    "api_key": "write_key",
    "api_url": "host",
    "batch_size": "upload_size",
    "flush_interval_s": "upload_interval",
    "timeout_s": "timeout",
}


def make_client(
    *,
    write_key: str | None,
    host: str | None,
    debug: bool,
    max_queue_size: int,
    send: bool,
    on_error: OnError | None,
    timeout: float,
    upload_size: int,
    upload_interval: float,
    proxies: object,
    oauth: object,
) -> Client:
    """Return a client; raise ConfigError, which names every mistake in the words of Segment."""
    mistakes = _from_segment(write_key, host) if send else []
    if proxies:
        mistakes.append("proxies is not supported; set HTTPS_PROXY and NO_PROXY instead.")
    if oauth:
        mistakes.append("oauth_* are not supported; the collector knows keys only.")
    try:
        client = Client(
            write_key,
            host,
            debug=debug,
            max_queue_size=max_queue_size,
            enabled=send,
            on_error=None if on_error is None else _with_list(on_error),
            timeout_s=timeout,
            batch_size=upload_size,
            flush_interval_s=upload_interval,
        )
    except ConfigError as error:
        for mistake in error.mistakes:
            name, _, rest = mistake.partition(" ")
            mistakes.append(f"{NAMES.get(name, name)} {rest}")
    if mistakes:
        raise ConfigError(mistakes)
    return client


def _from_segment(write_key: Any, host: Any) -> list[str]:
    """Return what is wrong with settings that still point to Segment."""
    mistakes = []
    if isinstance(write_key, str) and SEGMENT_KEY.fullmatch(write_key):
        mistakes.append(
            "write_key is a key of Segment's; the collector wants its own (ak_live_...), which "
            "`analytics-collector keys create --scope ingest` makes."
        )
    url, _ = call_user_code(urlsplit, host)
    if url is not None and SEGMENT_HOST.fullmatch(str(url.hostname)):
        mistakes.append(
            "host is Segment's; it must be the address of your collector, such as "
            "http://127.0.0.1:8000."
        )
    return mistakes


def _with_list(on_error: OnError) -> Callable[[EventRejectedError], object]:
    """Return *on_error* as a function of the error alone."""
    return lambda error: on_error(error, [error.event])
