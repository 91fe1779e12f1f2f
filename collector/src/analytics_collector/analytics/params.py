"""Read what a request asks: steps, a range of time, a window.

Pure: knows neither HTTP nor SQL, and takes the present time as an argument. A reader collects
every mistake of a request before it raises `InvalidQuery`, so that one answer tells them all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from analytics_collector.analytics.steps import (
    MAX_NAME_CHARS,
    Mistakes,
    Step,
    check_text,
    read_steps,
)
from analytics_collector.errors import InvalidQuery

DEFAULT_WINDOW_S = 7 * 86_400
MAX_WINDOW_S = 3_660 * 86_400
MAX_TIME_WINDOW_S = 36_600 * 86_400

_UNIT_S = {"m": 60, "h": 3_600, "d": 86_400, "w": 7 * 86_400}
_TIME_WINDOW = re.compile(r"([1-9][0-9]{0,6})([mhdw])")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_INSTANT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(:[0-9]{2}([.][0-9]{1,9})?)?"
    r"(Z|[+-][0-9]{2}:[0-9]{2})"
)


@dataclass(frozen=True, slots=True)
class TimeRange:
    """The half-open range [start, end) of UTC instants; None is without bound."""

    start: datetime | None
    end: datetime | None


@dataclass(frozen=True, slots=True)
class FunnelQuery:
    """A funnel over the events of a range; the window counts from step 1, in elapsed seconds."""

    steps: tuple[Step, ...]
    window_s: int
    range: TimeRange


@dataclass(frozen=True, slots=True)
class Moment:
    """What one person did in one millisecond.

    `masks` has a number for each event: bit k - 1 is set if the event satisfies step k.
    `may_enter` is False behind the end of the range, where no attempt may begin.
    """

    at: datetime
    may_enter: bool
    masks: list[int]


@dataclass(frozen=True, slots=True)
class FunnelRequest:
    """A funnel as it was asked for: either `steps`, or `workflow_id` of a saved one."""

    steps: tuple[Step, ...] | None
    workflow_id: str | None
    window_s: int
    time_window: str | None
    timezone: str
    range: TimeRange


@dataclass(frozen=True, slots=True)
class WorkflowDraft:
    """A workflow to be saved; `steps` stay as they were sent, and were found valid."""

    name: str
    steps: list[Any]
    window_s: int


@dataclass(frozen=True, slots=True)
class Workflow:
    """A saved funnel definition."""

    workflow_id: str
    name: str
    steps: list[Any]
    window_s: int
    created_at: datetime


def read_funnel(body: Any, now: datetime) -> FunnelRequest:
    """Return the funnel that *body*, a decoded JSON value, asks for at the instant *now*.

    Members: `steps`, or `workflowId`; `from` and `to`, or `timeWindow` (the range is then
    [now - timeWindow, now)), or neither (all events). `from` belongs to the range, `to` does not:
    instants with an offset, or dates, which stand for the start of that day in `timezone` (IANA,
    default UTC), so the days of March are from 2025-03-01 to 2025-04-01.
    `windowSeconds` (default 7 days; a workflow brings its own). Raises `InvalidQuery`.
    """
    given = _object(body)
    mistakes = Mistakes()
    known = ("steps", "workflowId", "from", "to", "timeWindow", "timezone", "windowSeconds")
    mistakes.unknown_members("", given, known)
    workflow_id = given.get("workflowId")
    steps = None
    if workflow_id is None:
        steps = read_steps(given.get("steps"), mistakes)
    else:
        check_text(workflow_id, "workflowId", mistakes)
        for member in ("steps", "windowSeconds"):
            if given.get(member) is not None:
                mistakes.add(member, "comes from the workflow; leave out this or workflowId")
    window_s = _read_window(given.get("windowSeconds"), mistakes)
    timezone = _read_timezone(given.get("timezone"), mistakes)
    time_range = _read_range(given, timezone, now, mistakes)
    mistakes.raise_any()
    return FunnelRequest(
        steps, workflow_id, window_s, given.get("timeWindow"), timezone.key, time_range
    )


def read_workflow(body: Any) -> WorkflowDraft:
    """Return the workflow that *body*, a decoded JSON value, defines. Raises `InvalidQuery`."""
    given = _object(body)
    mistakes = Mistakes()
    mistakes.unknown_members("", given, ("name", "steps", "windowSeconds"))
    name: Any = given.get("name")
    if check_text(name, "name", mistakes, MAX_NAME_CHARS) and not name.strip():
        mistakes.add("name", "must have a character that can be seen")
    read_steps(given.get("steps"), mistakes)
    window_s = _read_window(given.get("windowSeconds"), mistakes)
    mistakes.raise_any()
    return WorkflowDraft(name, given["steps"], window_s)


def _object(body: Any) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise InvalidQuery("body", "must be a JSON object")
    return body


def _read_window(value: Any, mistakes: Mistakes) -> int:
    if value is None:
        return DEFAULT_WINDOW_S
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_WINDOW_S:
        mistakes.add("windowSeconds", f"must be a whole number of seconds, 1 to {MAX_WINDOW_S}")
        return DEFAULT_WINDOW_S
    return value


def _read_timezone(value: Any, mistakes: Mistakes) -> ZoneInfo:
    if value is None:
        return ZoneInfo("UTC")
    try:
        return ZoneInfo(value)
    # A name that is a folder, too long or no text at all fails in as many ways.
    except (KeyError, ValueError, OSError, TypeError, AttributeError):
        mistakes.add("timezone", 'must be the IANA name of a time zone, such as "Europe/Berlin"')
        return ZoneInfo("UTC")


def _read_range(
    given: Mapping[str, Any], timezone: ZoneInfo, now: datetime, mistakes: Mistakes
) -> TimeRange:
    time_window = given.get("timeWindow")
    if time_window is None:
        start = _read_instant(given.get("from"), "from", timezone, mistakes)
        end = _read_instant(given.get("to"), "to", timezone, mistakes)
        if start and end and start >= end:
            mistakes.add("to", "must lie after `from`; the range ends before it (exclusive)")
        return TimeRange(start, end)
    for member in ("from", "to"):
        if given.get(member) is not None:
            mistakes.add(member, "can't stand beside timeWindow; leave out one of them")
    match = _TIME_WINDOW.fullmatch(time_window) if isinstance(time_window, str) else None
    seconds = int(match[1]) * _UNIT_S[match[2]] if match else 0
    if not 1 <= seconds <= MAX_TIME_WINDOW_S or now.timestamp() < seconds:
        mistakes.add("timeWindow", 'must be a time up to now, such as "90m", "24h", "7d" or "4w"')
        return TimeRange(None, None)
    return TimeRange(_whole_ms(now - timedelta(seconds=seconds)), _whole_ms(now))


def _read_instant(
    value: Any, field: str, timezone: ZoneInfo, mistakes: Mistakes
) -> datetime | None:
    """Return *value* as UTC; a date is the start of that local day (docs/analyses.md)."""
    if value is None:
        return None
    try:
        if isinstance(value, str) and _DATE.fullmatch(value):
            # Where the day has no 00:00, the offset before the gap (fold=0) gives its end: the
            # first instant that exists.
            midnight = datetime.combine(date.fromisoformat(value), time(), timezone)
            return _storable(midnight.astimezone(UTC))
        if isinstance(value, str) and _INSTANT.fullmatch(value):
            return _storable(_whole_ms(datetime.fromisoformat(value).astimezone(UTC)))
    except (ValueError, OverflowError):
        pass
    mistakes.add(
        field,
        'must be a date such as "2026-11-20" (the start of that day in `timezone`), or a time '
        'with its offset such as "2026-11-20T10:00:00Z", from the year 1970 to 9900',
    )
    return None


def _whole_ms(instant: datetime) -> datetime:
    return instant.replace(microsecond=instant.microsecond // 1_000 * 1_000)


def _storable(instant: datetime) -> datetime:
    """Return *instant* if it can bound a range of events; ValueError if not."""
    if not 1969 <= instant.year <= 9900:
        raise ValueError(instant)
    return instant
