"""Settings: what was given, else the environment, else the default; wrong ones are all named.

The only module that reads `os.environ`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias
from urllib.parse import urlsplit

from analytics_sdk import _limits
from analytics_sdk.errors import ConfigError, EventRejectedError
from analytics_sdk.scrub import Scrubber

BeforeSend = Callable[[dict[str, Any]], dict[str, Any] | None]
OnError = Callable[[EventRejectedError], object]
Durable: TypeAlias = bool | Literal["fsync"]

WORDS = {"1": True, "true": True, "yes": True, "on": True}
WORDS |= {"0": False, "false": False, "no": False, "off": False}

# name: (type, smallest, largest, default)
NUMBERS: dict[str, tuple[type[int] | type[float], float, float, float]] = {
    "batch_size": (int, 1, _limits.MAX_BATCH_EVENTS, _limits.BATCH_SIZE),
    "flush_interval_s": (float, 0.01, 86_400, _limits.FLUSH_INTERVAL_S),
    "max_queue_size": (int, 1, 10_000_000, _limits.MAX_QUEUE_EVENTS),
    "timeout_s": (float, 0.01, 3_600, _limits.REQUEST_TIMEOUT_S),
    "shutdown_timeout_s": (float, 0, 3_600, _limits.SHUTDOWN_TIMEOUT_S),
    "spool_max_bytes": (int, 0, 2**50, _limits.MAX_SPOOL_BYTES),
    "sample_rate": (float, 0, 1, 1.0),
}
SWITCHES = {
    "enabled": True,
    "debug": False,
    "remember_identity": False,
    "handle_sigterm": False,
}
LISTS = ("allow_properties", "deny_properties", "allow_keys", "deny_keys")


@dataclass(frozen=True, slots=True)
class Config:
    """The settings of one client, checked. Made by `load()`."""

    api_key: str = field(repr=False)
    api_url: str
    batch_size: int
    flush_interval_s: float
    max_queue_size: int
    timeout_s: float
    shutdown_timeout_s: float
    sample_rate: float
    durable: Durable
    spool_dir: Path | None
    spool_max_bytes: int
    remember_identity: bool
    handle_sigterm: bool
    enabled: bool
    debug: bool
    scrubber: Scrubber = field(default_factory=Scrubber)
    super_properties: Mapping[str, Any] = field(default_factory=dict, repr=False)
    before_send: BeforeSend | None = None
    on_error: OnError | None = None


def load(given: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> Config:
    """
    Return the settings; a value of None in *given* counts as not given.

    Raises ConfigError, which names every mistake, never a key.
    """
    environ = os.environ if environ is None else environ
    mistakes: list[str] = []

    def value_of(name: str, default: Any = None) -> Any:
        if (value := given.get(name)) is not None:
            return value
        # An empty variable is how shells and compose files say "not set".
        return environ.get(f"ANALYTICS_{name.upper()}") or default

    values: dict[str, Any] = {
        name: _number(name, value_of(name, limits[-1]), limits, mistakes)
        for name, limits in NUMBERS.items()
    }
    values |= {name: _switch(name, value_of(name, on), mistakes) for name, on in SWITCHES.items()}
    values["durable"] = _durable(value_of("durable", False), mistakes)
    values["spool_dir"] = _directory("spool_dir", value_of("spool_dir"), mistakes)
    values["scrubber"] = _scrubber({name: value_of(name) for name in LISTS}, mistakes)
    values["super_properties"] = given.get("super_properties") or {}
    if not isinstance(values["super_properties"], Mapping):
        mistakes.append("super_properties must be a dict.")
    for name in ("before_send", "on_error"):
        values[name] = given.get(name)
        if values[name] is not None and not callable(values[name]):
            mistakes.append(f"{name} must be a function.")
    # A client that is switched off (tests, laptops) needs neither.
    needed = values["enabled"] is not False
    values["api_key"] = _api_key(value_of("api_key"), needed, mistakes)
    values["api_url"] = _api_url(value_of("api_url"), needed, mistakes)

    if mistakes:
        raise ConfigError(mistakes)
    return Config(**values)


def is_in_environment(environ: Mapping[str, str] | None = None) -> bool:
    """Tell whether the environment alone is enough to make a client."""
    environ = os.environ if environ is None else environ
    return bool(environ.get("ANALYTICS_API_KEY") and environ.get("ANALYTICS_API_URL"))


def xray_trace_header(environ: Mapping[str, str] | None = None) -> str:
    """Return what AWS Lambda says of the trace of its invocation, in the form of a header."""
    environ = os.environ if environ is None else environ
    return environ.get("_X_AMZN_TRACE_ID", "")


def _number(
    name: str,
    value: Any,
    limits: tuple[type[int] | type[float], float, float, float],
    mistakes: list[str],
) -> float | None:
    kind, smallest, largest, _ = limits
    try:
        # int(2.5) and float(True) would hide a mistake.
        number = None if isinstance(value, bool) else kind(value)
        is_exact = number is not None and (isinstance(value, str) or number == value)
    except (TypeError, ValueError, OverflowError):
        number, is_exact = None, False
    if number is None or not is_exact or not smallest <= number <= largest:
        what = "a whole number" if kind is int else "a number"
        mistakes.append(f"{name} must be {what} from {smallest:g} to {largest:g}.")
        return None
    return number


def _switch(name: str, value: Any, mistakes: list[str]) -> bool | None:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in WORDS:
        return WORDS[value.lower()]
    mistakes.append(f"{name} must be true or false.")
    return None


def _durable(value: Any, mistakes: list[str]) -> Durable | None:
    if value == "fsync":
        return "fsync"
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in WORDS:
        return WORDS[value.lower()]
    mistakes.append('durable must be true, false or "fsync".')
    return None


def _directory(name: str, value: Any, mistakes: list[str]) -> Path | None:
    if value is None:
        return None
    path = os.fspath(value) if isinstance(value, (str, os.PathLike)) else None
    if not isinstance(path, str) or not path or "\0" in path:
        mistakes.append(f"{name} must be the path of a directory.")
        return None
    return Path(path)


def _scrubber(given: Mapping[str, Any], mistakes: list[str]) -> Scrubber:
    lists: dict[str, Collection[str]] = {}
    for name, value in given.items():
        if value is None:
            continue
        # A variable of the environment has names with commas between.
        names = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
        if not isinstance(names, Collection) or not all(isinstance(part, str) for part in names):
            mistakes.append(f"{name} must be a list of names.")
            continue
        lists[name] = frozenset(part.casefold() for part in names)
    return Scrubber(**lists)


def _api_key(value: Any, needed: bool, mistakes: list[str]) -> str:
    if not value and not needed:
        return ""
    # Anything else can't stand in a header line, and hints at a pasted newline or a wrong variable.
    if not isinstance(value, str) or not value or not all("!" <= char <= "~" for char in value):
        mistakes.append(
            "api_key must be the key of your project (ak_live_...), without spaces; "
            "give it or set ANALYTICS_API_KEY."
        )
        return ""
    return value


def _api_url(value: Any, needed: bool, mistakes: list[str]) -> str:
    if not value and not needed:
        return ""
    try:
        url = urlsplit(value) if isinstance(value, str) else None
        is_good = (
            url is not None
            and url.scheme in ("http", "https")
            and bool(url.hostname)
            and url.port != 0
            # A password would show in the logs of HTTP libraries.
            and not (url.username or url.password or url.query or url.fragment)
            and value.isprintable()
            and " " not in value
        )
    except ValueError:
        is_good = False
    if not is_good:
        mistakes.append(
            "api_url must be the address of the collector, such as http://127.0.0.1:8000, "
            "without a password or a query; give it or set ANALYTICS_API_URL."
        )
        return ""
    return str(value).rstrip("/")
