"""Time of day where the user is: local time, weekday, and whether it is business hours. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from analytics_collector.ingest.enrich.seen import fact

_MAX_NAME_CHARS: Final = 64
_OPENS: Final = 9
_CLOSES: Final = 17  # at which it is closed
_WEEKDAYS: Final = (
    "monday",
    "tuesday",
    "wednesday",
    "thursday",
    "friday",
    "saturday",
    "sunday",
)
_SATURDAY: Final = 5
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def local_time(timezone: str, at: datetime) -> str | None:
    """Return the facts of the moment *at* as JSON; None if *timezone* names no time zone."""
    if not timezone or len(timezone) > _MAX_NAME_CHARS:
        return None
    # By the minute, which events of one time and place share. Not by timestamp(), which is slower.
    since = at - _EPOCH
    return _facts(timezone, since.days * 1440 + since.seconds // 60)


@lru_cache(maxsize=8192)
def _facts(timezone: str, minute: int) -> str | None:
    zone = _zone(timezone)
    if zone is None:
        return None
    try:
        local = datetime.fromtimestamp(minute * 60, zone)
    except (OverflowError, ValueError):  # the last hours of the year 9999
        return None
    is_weekday = local.weekday() < _SATURDAY
    return fact(
        {
            "time": local.isoformat(timespec="minutes"),
            "hour": local.hour,
            "weekday": _WEEKDAYS[local.weekday()],
            "businessHours": is_weekday and _OPENS <= local.hour < _CLOSES,
        }
    )


@lru_cache(maxsize=1024)
def _zone(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name)
    # What else a name can make of the file system: a directory, a file that is no zone.
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None
