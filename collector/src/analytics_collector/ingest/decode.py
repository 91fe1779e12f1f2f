"""From the bytes of a body to a `RawBatch`: encoding, UTF-8, JSON, envelope. Pure.

A body is parsed by orjson, which is fast and changes some things silently: an integer beyond 64
bit becomes a float, and a lone surrogate or an overflowing float costs the whole body. Where the
bytes show that this could happen the exact parser runs instead, so that only the event that holds
such a thing is refused or repaired.
"""

from __future__ import annotations

import json
import math
import re
import zlib
from typing import Any, Final

import orjson

from analytics_collector._limits import (
    MAX_BATCH_EVENTS,
    MAX_BODY_BYTES,
    MAX_GZIP_MEMBERS,
    MAX_INTEGER,
    MIN_INTEGER,
)
from analytics_collector.errors import Refusal
from analytics_collector.model import RawBatch

_GZIP: Final = 31  # zlib: 16 + 15, the gzip format with the largest window
_JSON_TYPE: Final = re.compile(
    r'application/json\s*(;\s*charset\s*=\s*("utf-?8"|utf-?8)\s*)?', re.IGNORECASE | re.ASCII
)
# Numbers of up to 18 digits are exact in orjson; longer runs of digits deserve a closer look.
_DIGITS_TO_ZERO: Final = bytes(48 if 48 <= byte < 58 else 32 for byte in range(256))
_LONG_NUMBER: Final = b"0" * 19

REFUSALS: Final = frozenset(
    {
        *("INVALID_ENCODING", "BODY_TOO_LARGE", "INVALID_UTF8", "INVALID_JSON", "TOO_DEEP"),
        *("INVALID_ENVELOPE", "EMPTY_BATCH", "BATCH_TOO_LARGE"),
    }
)
"""What is wrong with a body as such."""


class _OutOfRange:
    """Stands where a number was that can't be stored as it was sent."""


OUT_OF_RANGE: Final = _OutOfRange()


def check_content_type(value: str | None) -> None:
    """Refuse a Content-Type that is not JSON in UTF-8."""
    if value is None or not _JSON_TYPE.fullmatch(value.strip()):
        raise Refusal("UNSUPPORTED_CONTENT_TYPE")


def is_gzip(value: str | None) -> bool:
    """Return whether Content-Encoding *value* means gzip; refuse what is not understood."""
    coding = (value or "").strip().lower()
    if coding in ("", "identity"):
        return False
    if coding in ("gzip", "x-gzip"):
        return True
    raise Refusal("UNSUPPORTED_ENCODING")


def inflate(body: bytes) -> bytes:
    """Return the inflated gzip *body*, never making more than `MAX_BODY_BYTES` of it."""
    parts: list[bytes] = []
    room = MAX_BODY_BYTES
    rest = body
    for _ in range(MAX_GZIP_MEMBERS):
        member = zlib.decompressobj(_GZIP)
        try:
            part = member.decompress(rest, room + 1)
        except zlib.error as exc:
            raise Refusal("INVALID_ENCODING") from exc
        room -= len(part)
        if room < 0:
            raise Refusal("BODY_TOO_LARGE")
        if not member.eof:
            raise Refusal("INVALID_ENCODING")
        parts.append(part)
        rest = member.unused_data
        if not rest:
            return b"".join(parts)
    raise Refusal("INVALID_ENCODING")


def parse(body: bytes) -> RawBatch:
    """Return the batch that *body* holds; refuse what is not an envelope of JSON."""
    document, exact = _load(body)
    if not isinstance(document, dict) or not isinstance(document.get("batch"), list):
        raise Refusal("INVALID_ENVELOPE")
    events = document["batch"]
    if not events:
        raise Refusal("EMPTY_BATCH")
    if len(events) > MAX_BATCH_EVENTS:
        raise Refusal("BATCH_TOO_LARGE")
    return RawBatch(events, document.get("sentAt"), exact)


def _load(body: bytes) -> tuple[Any, bool]:
    if b"\\u0000" in body or _LONG_NUMBER in body.translate(_DIGITS_TO_ZERO):
        return _load_exactly(body), True
    try:
        return orjson.loads(body), False
    except orjson.JSONDecodeError:
        return _load_exactly(body), True


def _load_exactly(body: bytes) -> Any:
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise Refusal("INVALID_UTF8") from exc
    try:
        return json.loads(
            text, parse_int=_integer, parse_float=_float, parse_constant=_refuse_constant
        )
    except RecursionError as exc:
        raise Refusal("TOO_DEEP") from exc
    except ValueError as exc:
        raise Refusal("INVALID_JSON") from exc


def _integer(digits: str) -> int | _OutOfRange:
    # 20 digits and a sign are the longest in range; int() of a long text is slow and limited.
    if len(digits) > 20:
        return OUT_OF_RANGE
    number = int(digits)
    return number if MIN_INTEGER <= number <= MAX_INTEGER else OUT_OF_RANGE


def _float(digits: str) -> float | _OutOfRange:
    number = float(digits)
    return number if math.isfinite(number) else OUT_OF_RANGE


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
