"""Read the settings from the environment: the only module that knows `os.environ`.

Every setting is `ANALYTICS_<FIELD>`; the two URLs are also read without the prefix, as hosting
platforms name them. All mistakes are reported at once.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import platformdirs

from analytics_collector.errors import ConfigurationError

MIN_SECRET_CHARS = 16
# Stands in a setting that the command at hand makes no use of.
NOT_NEEDED = ""


def environment_for_child(settings: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of this process with *settings* in it, for one that it starts."""
    return {**os.environ, **settings}


def default_data_dir() -> Path:
    """Return where `up` keeps its data unless it is told."""
    return Path(platformdirs.user_data_dir("analytics-collector", appauthor=False))


@dataclass(frozen=True, slots=True)
class Settings:
    """What the processes of the collector need to know; defaults as in the README."""

    database_url: str = field(repr=False)
    redis_url: str = field(repr=False)
    secret: str = field(repr=False)
    host: str = "127.0.0.1"
    port: int = 8000
    data_dir: Path = field(default_factory=default_data_dir)
    log_level: str = "INFO"
    rate_limit_per_minute: int = 120_000
    commit_timeout_s: float = 5.0
    database_pool_size: int = 8
    shutdown_timeout_s: float = 10.0


_PLAIN_NAMES = {"database_url": "DATABASE_URL", "redis_url": "REDIS_URL"}


def _number(convert: type[int] | type[float], text: str) -> float:
    try:
        return convert(text)
    except ValueError:
        kind = "whole number" if convert is int else "number"
        raise ValueError(f"must be a {kind}, not {text!r}") from None


def _positive(convert: type[int] | type[float]) -> Callable[[str], float]:
    def parse(text: str) -> float:
        number = _number(convert, text)
        if not 0 < number < math.inf:
            raise ValueError("must be greater than 0")
        return number

    return parse


def _port(text: str) -> float:
    number = _number(int, text)
    if not 0 <= number <= 65535:
        raise ValueError("must be between 0 and 65535")
    return number


def _url(*schemes: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        try:
            url = urlsplit(text)
            is_good = url.scheme in schemes and url.port != 0
        except ValueError:
            is_good = False
        if not is_good:
            # The text itself may hold a password.
            raise ValueError(f"must be a URL that begins with {' or '.join(schemes)}")
        return text

    return parse


def _secret(text: str) -> str:
    if len(text) < MIN_SECRET_CHARS:
        raise ValueError(f"must have at least {MIN_SECRET_CHARS} characters")
    return text


def _level(text: str) -> str:
    if text.upper() not in {"DEBUG", "INFO", "WARNING", "ERROR"}:
        raise ValueError("must be DEBUG, INFO, WARNING or ERROR")
    return text.upper()


_PARSERS: dict[str, Callable[[str], Any]] = {
    "database_url": _url("postgresql", "postgres"),
    "redis_url": _url("redis", "rediss", "unix"),
    "secret": _secret,
    "port": _port,
    "data_dir": Path,
    "log_level": _level,
    "rate_limit_per_minute": _positive(int),
    "commit_timeout_s": _positive(float),
    "database_pool_size": _positive(int),
    "shutdown_timeout_s": _positive(float),
}


def read_settings(environ: Mapping[str, str] | None = None, **given: Any) -> Settings:
    """Return the settings of *environ* (default: the process's); *given* ones win.

    Raises `ConfigurationError` that lists every setting that is missing or wrong.
    """
    environ = os.environ if environ is None else environ
    values = {name: value for name, value in given.items() if value is not None}
    mistakes = []
    for spec in fields(Settings):
        if spec.name in values:
            continue
        variable = f"ANALYTICS_{spec.name.upper()}"
        text = environ.get(variable) or environ.get(_PLAIN_NAMES.get(spec.name, ""))
        required = spec.name in {"database_url", "redis_url", "secret"}
        if not text:
            if required:
                plain = f" (or {_PLAIN_NAMES[spec.name]})" if spec.name in _PLAIN_NAMES else ""
                mistakes.append(f"{variable}{plain} is not set")
            continue
        try:
            values[spec.name] = _PARSERS.get(spec.name, str)(text)
        except ValueError as exc:
            mistakes.append(f"{variable} {exc}" if not required else f"{variable}: {exc}")
    if mistakes:
        raise ConfigurationError("; ".join(mistakes))
    return Settings(**values)
