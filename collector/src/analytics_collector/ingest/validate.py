"""Decide for each event of a batch whether it can be stored, and as what row. Pure.

The specification's own JSON Schema is the judge (`_spec/event.json`); what no schema can say
stands here: depth, size, numbers, unreadable characters, and what a timestamp means.
"""

from __future__ import annotations

import os
import re
import time
import uuid
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from typing import Any, Final

import jsonschema_rs
import orjson

from analytics_collector._limits import (
    MAX_DEPTH,
    MAX_EVENT_BYTES,
    MAX_FUTURE_S,
    MIN_CLOCK_SKEW_S,
    MIN_TIMESTAMP_YEAR,
)
from analytics_collector.ingest.decode import OUT_OF_RANGE
from analytics_collector.model import EventRow, RawBatch, Rejection, ValidBatch

_SPEC = files("analytics_collector").joinpath("_spec")
_SCHEMA: Final[dict[str, Any]] = orjson.loads(_SPEC.joinpath("event.json").read_bytes())
_SCHEMA_VALIDATOR: Final = jsonschema_rs.Draft202012Validator(_SCHEMA)
# The codes in their order in the specification: of several faults, the first is told.
_CODES: Final = list(orjson.loads(_SPEC.joinpath("errors.json").read_bytes())["event"])
_MEMBERS: Final = frozenset(_SCHEMA["properties"])
_IDENTIFIERS: Final = ("userId", "anonymousId", "sessionId", "groupId", "previousId")
_MAX_FUTURE: Final = timedelta(seconds=MAX_FUTURE_S)
_MIN_SKEW: Final = timedelta(seconds=MIN_CLOCK_SKEW_S)
_EARLIEST: Final = datetime(MIN_TIMESTAMP_YEAR, 1, 1, tzinfo=UTC)
_TIMESTAMP: Final = re.compile(_SCHEMA["properties"]["timestamp"]["pattern"])
_EXPONENT: Final = re.compile(rb"[0-9]e[+-]?([0-9]{1,3})")
_MAX_EXPONENT: Final = 308  # of a 64-bit float
_UNREADABLE: Final = {0: "\ufffd", **dict.fromkeys(range(0xD800, 0xE000), "\ufffd")}


class _Rejected(Exception):
    """The event in hand can't be stored."""

    def __init__(self, code: str, field: str | None = None) -> None:
        super().__init__(code)
        self.code = code
        self.field = field


def validate(batch: RawBatch, project_id: int, received_at: datetime) -> ValidBatch:
    """Return the rows of the events that can be stored, and a verdict for each other one.

    *received_at* is the collector's clock, in UTC, when the body had arrived.
    """
    skew = _clock_skew(batch.sent_at, received_at)
    result = ValidBatch([], [], [], [])
    for index, event in enumerate(batch.events):
        try:
            checked = _repaired(event) if batch.exact else event
            _check_schema(checked)
            row = _row(checked, project_id, received_at, skew)
        except _Rejected as exc:
            result.rejected.append(Rejection(index, _message_id(event), exc.code, exc.field))
        else:
            result.rows.append(row)
            result.indexes.append(index)
            result.events.append(checked)
    return result


def _check_schema(event: Any) -> None:
    try:
        if _SCHEMA_VALIDATOR.is_valid(event):
            return
        faults = [
            (_refusal_code(fault.evaluation_path), fault)
            for fault in _SCHEMA_VALIDATOR.iter_errors(event)
        ]
    except ValueError as exc:  # nested deeper than the validator follows, or can tell of
        raise _Rejected("TOO_DEEP") from exc
    code, fault = min(faults, key=lambda pair: _CODES.index(pair[0]))
    raise _Rejected(code, ".".join(map(str, fault.instance_path)) or None)


def _refusal_code(path: list[str | int]) -> str:
    """Return the deepest `x-refusal` on *path*, the way to the keyword that failed."""
    node: Any = _SCHEMA
    code: str = node["x-refusal"]
    for step in path:
        if step == "$ref":  # the way goes on inside the definition
            node = _SCHEMA["$defs"][node["$ref"].rpartition("/")[2]]
        else:
            node = node[step]
        if isinstance(node, dict):
            code = node.get("x-refusal", code)
    return code


def _row(
    event: dict[str, Any], project_id: int, received_at: datetime, skew: timedelta | None
) -> EventRow:
    get = event.get
    extra = None if event.keys() <= _MEMBERS else {k: event[k] for k in event.keys() - _MEMBERS}
    properties, traits = get("properties"), get("traits")
    context = get("context")
    texts = _serialise(properties, traits, context, extra)
    timestamp, client_timestamp, clamped = _timestamp(get("timestamp"), received_at, skew)
    message_id = get("messageId")
    kind = event["type"]
    return EventRow(
        project_id,
        message_id.lower() if message_id else new_message_id(),
        timestamp,
        received_at,
        client_timestamp,
        clamped,
        kind,
        get("name") or f"${kind}",
        get("userId") or None,
        get("anonymousId") or None,
        get("sessionId") or None,
        get("groupId") or None,
        get("previousId") or None,
        texts[0] or "{}",
        texts[1],
        texts[2] or "{}",
        texts[3],
    )


def _serialise(*parts: dict[str, Any] | None) -> list[str | None]:
    """Return each part as JSON; reject what is larger or deeper than an event may be."""
    texts: list[str | None] = []
    size = 0
    for part in parts:
        if not part:
            texts.append(None)
            continue
        try:
            text = orjson.dumps(part)
        except TypeError as exc:  # orjson stops at 254 levels
            raise _Rejected("TOO_DEEP") from exc
        # A part is at least one level below its event. Brackets inside strings count too:
        # more of them than levels allowed is only a reason to look closely.
        if text.count(b"{") + text.count(b"[") >= MAX_DEPTH:
            _check_depth(part, 2)
        size += len(text) + _exponent_digits(text)
        texts.append(text.decode())
    if size > MAX_EVENT_BYTES:
        raise _Rejected("EVENT_TOO_LARGE")
    return texts


def _exponent_digits(text: bytes) -> int:
    """Return at least how many digits the numbers of *text* have that their exponents stand for.

    The store writes 1e300 out, so five bytes become 301. The letter itself is counted first, for
    few events have so many that it matters.
    """
    if text.count(b"e") * _MAX_EXPONENT < MAX_EVENT_BYTES // 2:
        return 0
    return sum(int(exponent) for exponent in _EXPONENT.findall(text))


def _check_depth(value: Any, level: int) -> None:
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list):
        return
    if level > MAX_DEPTH:
        raise _Rejected("TOO_DEEP")
    for item in value:
        _check_depth(item, level + 1)


def _repaired(event: Any) -> Any:
    """Return *event* with NUL and lone surrogates in its values replaced by U+FFFD.

    Identifiers and names are never rewritten, since that could make one of two: they are refused.
    """
    if not isinstance(event, dict):
        raise _Rejected("INVALID_EVENT")
    for member in ("name", *_IDENTIFIERS):
        value = event.get(member)
        if isinstance(value, str) and value.translate(_UNREADABLE) != value:
            raise _Rejected("INVALID_NAME" if member == "name" else "INVALID_IDENTIFIER", member)
    return _repaired_value(event, 1)


def _repaired_value(value: Any, level: int) -> Any:
    if isinstance(value, str):
        return value.translate(_UNREADABLE)
    if value is OUT_OF_RANGE:
        raise _Rejected("NUMBER_OUT_OF_RANGE")
    if not isinstance(value, dict | list):
        return value
    if level > MAX_DEPTH:
        raise _Rejected("TOO_DEEP")
    if isinstance(value, list):
        return [_repaired_value(item, level + 1) for item in value]
    return {
        key.translate(_UNREADABLE): _repaired_value(item, level + 1) for key, item in value.items()
    }


def _timestamp(
    text: str | None, received_at: datetime, skew: timedelta | None
) -> tuple[datetime, datetime | None, bool]:
    """Return when the event happened, what the client said if that differs, and if clamped."""
    if text is None:
        return received_at, None, False
    try:
        said = parse_instant(text)
    except ValueError as exc:
        raise _Rejected("INVALID_TIMESTAMP", "timestamp") from exc
    if said < _EARLIEST:
        raise _Rejected("TIMESTAMP_OUT_OF_RANGE", "timestamp")
    happened = said if skew is None else _corrected(said, skew)
    if happened - received_at > _MAX_FUTURE:
        return received_at, said, True
    return happened, (None if happened == said else said), False


def _corrected(said: datetime, skew: timedelta) -> datetime:
    """Return *said* corrected by *skew*, or as it is where that leads out of the calendar."""
    try:
        happened = said + skew
    except OverflowError:
        return said
    return said if happened < _EARLIEST else happened


def _clock_skew(sent_at: Any, received_at: datetime) -> timedelta | None:
    """Return how far the client's clock is behind, or None if that is little or unknown."""
    if not isinstance(sent_at, str) or not _TIMESTAMP.match(sent_at):
        return None
    try:
        sent = parse_instant(sent_at)
    except ValueError:
        return None
    skew = received_at - sent
    return skew if sent >= _EARLIEST and abs(skew) > _MIN_SKEW else None


def parse_instant(text: str) -> datetime:
    """Return the instant in UTC that ISO 8601 *text* names; without an offset it is UTC.

    Raises `ValueError` for what is no instant, or none between the years 1 and 9999 in UTC.
    """
    instant = datetime.fromisoformat(text.replace("z", "Z"))
    if instant.tzinfo is UTC:
        return instant
    if instant.tzinfo is None:
        return instant.replace(tzinfo=UTC)
    try:
        return instant.astimezone(UTC)
    except OverflowError as exc:
        raise ValueError("outside the years 1 to 9999 in UTC") from exc


def new_message_id() -> str:
    """Return a UUIDv7 (RFC 9562): ids of one time lie together in the index."""
    unix_ms = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10))
    value = unix_ms << 80 | 0x7 << 76 | (random >> 68) << 64 | 0b10 << 62 | random & (1 << 62) - 1
    return str(uuid.UUID(int=value))


def _message_id(event: Any) -> str | None:
    """Return the id by which the client knows a rejected event, if one can be read."""
    if not isinstance(event, dict):
        return None
    value = event.get("messageId")
    return value[:64].translate(_UNREADABLE) if isinstance(value, str) else None
