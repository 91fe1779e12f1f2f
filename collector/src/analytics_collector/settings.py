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
# Read by the metrics library itself, when it is imported.
SHARED_METRICS_DIR = "PROMETHEUS_MULTIPROC_DIR"
# Stands in a setting that the command at hand makes no use of.
NOT_NEEDED = ""
# Stands in ANALYTICS_SPOOL in place of a directory.
SPOOL_IN_REDIS = "redis"


def environment_for_child(settings: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of this process with *settings* in it, for one that it starts."""
    return {**os.environ, **settings}


def shared_metrics_dir() -> str | None:
    """Return where the metrics of all processes of a server lie; None if it is the only one."""
    return os.environ.get(SHARED_METRICS_DIR)


def is_traced() -> bool:
    """Return whether the environment says where OpenTelemetry's spans are to go."""
    return any(os.environ.get(f"OTEL_EXPORTER_OTLP_{kind}ENDPOINT") for kind in ("", "TRACES_"))


def default_data_dir() -> Path:
    """Return where `up` keeps its data unless it is told."""
    return Path(platformdirs.user_data_dir("analytics-collector", appauthor=False))


@dataclass(frozen=True, slots=True)
class Settings:
    """What the processes of the collector need to know; defaults as in the README."""

    database_url: str = field(repr=False)
    redis_url: str = field(repr=False)
    secret: str = field(repr=False)
    secret_previous: tuple[str, ...] = field(default=(), repr=False)
    host: str = "127.0.0.1"
    port: int = 8000
    uds: Path | None = None
    workers: int = 1
    tls_cert: Path | None = None
    tls_key: Path | None = None
    data_dir: Path = field(default_factory=default_data_dir)
    log_level: str = "INFO"
    rate_limit_requests_per_minute: int = 10_000
    rate_limit_project_requests_per_minute: int | None = None
    rate_limit_events_per_minute: int = 600_000
    rate_limit_user_events_per_minute: int | None = None
    rate_limit_address_requests_per_minute: int = 100
    monthly_events: int | None = None
    trusted_proxies: int = 0
    geoip_database: Path | None = None
    ack: str = "postgres"
    spool: str | None = None
    spool_max_bytes: int = 1024 * 1024 * 1024
    key_grace_s: float = 900.0
    commit_timeout_s: float = 5.0
    database_pool_size: int = 8
    shutdown_timeout_s: float = 10.0
    live_listeners: int = 100
    dead_letter_max_per_project: int = 10_000
    dead_letter_days: int = 30
    commit_log_days: int = 7


_PLAIN_NAMES = {
    "database_url": "DATABASE_URL",
    "redis_url": "REDIS_URL",
    # As it was called before there were limits of other things.
    "rate_limit_requests_per_minute": "ANALYTICS_RATE_LIMIT_PER_MINUTE",
}


# May also stand in a file of their own, which `<variable>_FILE` names.
_SECRETS = frozenset({"database_url", "redis_url", "secret", "secret_previous"})


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


def _not_negative(text: str) -> float:
    number = _number(int, text)
    if number < 0:
        raise ValueError("must not be less than 0")
    return number


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


def _secrets(text: str) -> tuple[str, ...]:
    return tuple(_secret(part.strip()) for part in text.split(",") if part.strip())


def _ack(text: str) -> str:
    if text not in {"postgres", "spool"}:
        raise ValueError("must be postgres or spool")
    return text


def _level(text: str) -> str:
    if text.upper() not in {"DEBUG", "INFO", "WARNING", "ERROR"}:
        raise ValueError("must be DEBUG, INFO, WARNING or ERROR")
    return text.upper()


_PARSERS: dict[str, Callable[[str], Any]] = {
    "database_url": _url("postgresql", "postgres"),
    "redis_url": _url("redis", "rediss", "unix"),
    "secret": _secret,
    "secret_previous": _secrets,
    "port": _port,
    "uds": Path,
    "workers": _positive(int),
    "tls_cert": Path,
    "tls_key": Path,
    "data_dir": Path,
    "log_level": _level,
    "rate_limit_requests_per_minute": _positive(int),
    "rate_limit_project_requests_per_minute": _positive(int),
    "rate_limit_events_per_minute": _positive(int),
    "rate_limit_user_events_per_minute": _positive(int),
    "rate_limit_address_requests_per_minute": _positive(int),
    "monthly_events": _positive(int),
    "trusted_proxies": _not_negative,
    "geoip_database": Path,
    "ack": _ack,
    "spool_max_bytes": _positive(int),
    "key_grace_s": _positive(float),
    "commit_timeout_s": _positive(float),
    "database_pool_size": _positive(int),
    "shutdown_timeout_s": _positive(float),
    "live_listeners": _positive(int),
    "dead_letter_max_per_project": _positive(int),
    "dead_letter_days": _positive(int),
    "commit_log_days": _not_negative,
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
        text = environ.get(variable)
        if not text and (text := environ.get(_PLAIN_NAMES.get(spec.name, ""))):
            variable = _PLAIN_NAMES[spec.name]
        if not text and spec.name in _SECRETS and (path := environ.get(f"{variable}_FILE")):
            variable = f"{variable}_FILE"
            try:
                text = Path(path).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as exc:
                mistakes.append(f"{variable}: {path} can't be read ({type(exc).__name__})")
                continue
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
    if (values.get("tls_cert") is None) != (values.get("tls_key") is None):
        mistakes.append("ANALYTICS_TLS_CERT and ANALYTICS_TLS_KEY need each other")
    if mistakes:
        raise ConfigurationError("; ".join(mistakes))
    return Settings(**values)
