"""Where an address is, by a database in MaxMind's format; reopened when its file changes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import maxminddb

from analytics_collector import metrics
from analytics_collector.errors import ConfigurationError
from analytics_collector.ingest.enrich.address import parse_address
from analytics_collector.ingest.enrich.seen import fact, members, short, text

logger = logging.getLogger(__name__)

_CHECK_S: Final = 10.0
_MAX_ADDRESS_CHARS: Final = 64
_Identity = tuple[int, int, int]

# What a damaged file, or a question it has no answer to (IPv6 of an IPv4 database), raises.
_FAILURES = (maxminddb.InvalidDatabaseError, ValueError, OSError)


class GeoDatabase:
    """The database at *path*. A new file has to take the place of the old one by a rename."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Raise `ConfigurationError` unless *path* is such a database."""
        self._path = path
        self._clock = clock
        self._next_check = clock() + _CHECK_S
        try:
            self._identity = self._look()
            self._open()
        except _FAILURES as exc:
            raise ConfigurationError(f"{path} is no database in MaxMind's format: {exc}") from exc

    def facts(self, value: str) -> str | None:
        """Return what is known of the address *value* as JSON, or None."""
        return self._cached(value[:_MAX_ADDRESS_CHARS]) if value else None

    def refresh(self) -> None:
        """Reopen the file if it has changed; looks every few seconds, however often called."""
        now = self._clock()
        if now < self._next_check:
            return
        self._next_check = now + _CHECK_S
        try:
            identity = self._look()
            if identity == self._identity:
                return
            self._open()
        except _FAILURES as exc:
            # Perhaps it is being replaced: what is open stays good.
            logger.warning("Geo database not reopened", extra={"reason": type(exc).__name__})
            return
        self._identity = identity

    def _look(self) -> _Identity:
        found = self._path.stat()
        return found.st_ino, found.st_mtime_ns, found.st_size

    def _open(self) -> None:
        self._reader = maxminddb.open_database(self._path)
        self._cached = lru_cache(maxsize=8192)(self._facts)

    def _facts(self, value: str) -> str | None:
        address = parse_address(value)
        if address is None:
            return None
        try:
            record = self._reader.get(address)
        except _FAILURES:
            metrics.GEO_FAILURES.inc()
            return None
        facts = _place(record) if isinstance(record, dict) else {}
        return fact(facts) if facts else None


def _place(record: dict[str, Any]) -> dict[str, str]:
    """Return the place in *record*: MaxMind's form, or the flat one of smaller databases."""
    country = record.get("country")
    found = {
        "continent": text(members(record.get("continent")).get("code")),
        "country": text(members(country).get("iso_code")) or text(record.get("country_code")),
        "region": _name(_first(record.get("subdivisions"))) or text(record.get("region")),
        "city": _name(record.get("city")) or text(record.get("city")),
        "timezone": text(members(record.get("location")).get("time_zone")),
    }
    return {name: short(value) for name, value in found.items() if value}


def _name(place: Any) -> str:
    return text(members(members(place).get("names")).get("en"))


def _first(values: Any) -> Any:
    return values[0] if isinstance(values, list) and values else None
