"""Decide what an answer of the collector means for the events that were sent.

Pure: no clock, no sleep, no random numbers; the worker does the waiting. The rows are those of
spec/vectors/delivery.json.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any, TypeAlias

import orjson

from analytics_sdk._limits import (
    AUTH_PROBE_INTERVAL_S,
    FIRST_RETRY_DELAY_S,
    MAX_RETRY_AFTER_S,
    MAX_RETRY_DELAY_S,
)

# What to tell the user, by the reason of a decision.
MESSAGES = {
    "no_answer": "No answer from the collector; the events wait",
    "malformed_answer": "The answer is not a collector's; the events wait",
    "rate_limited": "The collector asks to slow down; the events wait",
    "unavailable": "The collector can't take events; the events wait",
    "auth_failed": "The collector refuses the API key; correct it or its scope, the events wait",
    "quota_exceeded": "The project's quota of events is used up; raise it, the events wait",
    "too_large": "The collector finds the batch too large; it goes in parts",
    "bad_request": "The collector finds the batch malformed; it goes in parts",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for a request; without a status nothing (complete) did."""

    status: int | None = None
    body: bytes = b""
    retry_after: str | None = None
    failure: str = ""
    """The kind of the error if there is no status, such as ConnectError."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why the collector refuses the event at `index` of the batch."""

    index: int
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Delivered:
    """The events are safe, but for those with a verdict."""

    duplicates: int = 0
    rejected: tuple[Verdict, ...] = ()


@dataclass(frozen=True, slots=True)
class Reject:
    """The events with a verdict are refused for good; send what is left of the batch again."""

    rejected: tuple[Verdict, ...]


@dataclass(frozen=True, slots=True)
class Split:
    """Send the batch in two parts."""

    reason: str


@dataclass(frozen=True, slots=True)
class Again:
    """Send the same events again after `delay_s`, of which `floor_s` can't be cut short."""

    reason: str
    delay_s: float
    floor_s: float = 0.0


Decision: TypeAlias = Delivered | Reject | Split | Again


def decide(
    answer: Answer, *, events: int, attempt: int, now: datetime, jitter: float = 0.0
) -> Decision:
    """
    Return what becomes of a batch of *events* events after *attempt* (1 is the first).

    *jitter*, in [0, 1), is drawn by the caller, *now* is for a Retry-After that is a date: so tests
    and vectors are exact.
    """
    document = _object(answer.body)
    match answer.status:
        # A captive portal or a proxy answers 2xx as well; only this is the collector's word.
        case 202 if type(document.get("eventCount")) is int:
            duplicates = _count(document.get("duplicates"), events)
            return Delivered(duplicates, _verdicts(document.get("rejected"), events))
        case 400 if rejected := _verdicts(document.get("rejected"), events):
            return Reject(rejected)
        case 400:
            return _apart(document, events, "bad_request", "INVALID_REQUEST")
        case 413:
            return _apart(document, events, "too_large", "BODY_TOO_LARGE")
        case 401 | 402 | 403:
            # What somebody has to change; to ask more often would not help.
            reason = "quota_exceeded" if answer.status == 402 else "auth_failed"
            return Again(reason, AUTH_PROBE_INTERVAL_S)
    # 408, 429 and 5xx pass. So will the rest: 3xx, 404 or 415 come from a wrong address or from
    # something in between, not from these events, and no event is lost by waiting.
    reasons = {None: "no_answer", 202: "malformed_answer", 429: "rate_limited"}
    return _again(reasons.get(answer.status, "unavailable"), answer, attempt, now, jitter)


def retry_after_s(header: str | None, now: datetime) -> float:
    """Return the seconds a Retry-After header asks for, from 0 to its bound; 0 if unreadable."""
    if header is None:
        return 0.0
    text = header.strip()
    if text.isascii() and text.isdigit():
        # Ten digits are 300 years; more may be more than a float holds.
        return min(float(text[:10]) if len(text) <= 10 else MAX_RETRY_AFTER_S, MAX_RETRY_AFTER_S)
    try:
        moment = parsedate_to_datetime(text)
    except (TypeError, ValueError, OverflowError, IndexError):
        return 0.0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return min(max((moment - now).total_seconds(), 0.0), MAX_RETRY_AFTER_S)


def _again(reason: str, answer: Answer, attempt: int, now: datetime, jitter: float) -> Again:
    # The exponent is bounded for the float's sake: an outage may take thousands of attempts.
    backoff_s = min(FIRST_RETRY_DELAY_S * 2 ** min(attempt - 1, 30), MAX_RETRY_DELAY_S)
    floor_s = retry_after_s(answer.retry_after, now)
    # Jitter comes on top of Retry-After: clients all told "12 seconds" by one collector must not
    # come back together.
    return Again(reason, floor_s + backoff_s * jitter, floor_s)


def _apart(document: dict[str, Any], events: int, reason: str, code: str) -> Split | Reject:
    if events > 1:
        return Split(reason)
    return Reject((_verdict(0, {"code": code, "message": document.get("error"), **document}),))


def _object(body: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return document if isinstance(document, dict) else {}


def _count(value: Any, largest: int) -> int:
    return min(value, largest) if type(value) is int and value > 0 else 0


def _verdicts(value: Any, events: int) -> tuple[Verdict, ...]:
    """Return the readable verdicts, one an event."""
    found: dict[int, Verdict] = {}
    for entry in value if isinstance(value, list) else ():
        index = entry.get("index") if isinstance(entry, dict) else None
        if type(index) is int and 0 <= index < events:
            found.setdefault(index, _verdict(index, entry))
    return tuple(found[index] for index in sorted(found))


def _verdict(index: int, entry: dict[str, Any]) -> Verdict:
    code, message = entry.get("code"), entry.get("message")
    return Verdict(
        index,
        code if isinstance(code, str) else "INVALID_EVENT",
        message if isinstance(message, str) else "The collector refused the event.",
    )
