"""Bodies of which little text means much work: each is judged within the time of a good one."""

from __future__ import annotations

import contextlib
import gzip
import json
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from analytics_collector._limits import MAX_BODY_BYTES, MAX_GZIP_MEMBERS
from analytics_collector.errors import Refusal
from analytics_collector.ingest.decode import inflate, parse
from analytics_collector.ingest.validate import validate

# Of processor time, the least of three tries, so that a busy machine does not count.
MAX_CPU_S = 0.05
NOW = datetime.now(UTC)
NESTED = 100_000


def body_of(**members: Any) -> bytes:
    """Return a body of one event that is good but for *members*."""
    event = {"type": "track", "name": "e", "userId": "u-1", **members}
    return json.dumps({"batch": [event]}).encode()


def with_number(digits: str) -> bytes:
    return body_of(properties={"n": "HERE"}).replace(b'"HERE"', digits.encode())


SHAPES = {
    "a-megabyte-of-brackets": b"[" * MAX_BODY_BYTES,
    "lists-100000-deep": with_number("[" * NESTED + "]" * NESTED),
    "objects-100000-deep": with_number('{"a":' * NESTED + "1" + "}" * NESTED),
    "9000-keys": body_of(properties={f"key-{n}": n for n in range(9_000)}),
    "9000-unknown-members": body_of(**{f"member-{n}": n for n in range(9_000)}),
    "100000-digits": with_number("9" * 100_000),
    "100000-digits-of-a-fraction": with_number("0." + "9" * 100_000),
    "100000-digits-of-an-exponent": with_number("1e" + "9" * 100_000),
    "timestamp-of-5-KB": body_of(timestamp="2026-01-02T03:04:05." + "0" * 5_000 + "Z"),
    "sent-at-of-5-KB": body_of()[:-1] + b', "sentAt": "2026-01-02T03:04:05.' + b"0" * 5_000 + b'"}',
}
BOMBS = {
    "64-MiB-of-zeros": gzip.compress(bytes(64 * 1024 * 1024)),
    "40000-members": gzip.compress(b"") * 40_000,
    "a-member-more-than-allowed": gzip.compress(b" " * 60_000) * (MAX_GZIP_MEMBERS + 1),
}


def cpu_s(body: bytes, *, gzipped: bool = False) -> float:
    """Return the least processor time that judging *body* took."""
    times = []
    for _ in range(3):
        started = time.process_time()
        with contextlib.suppress(Refusal):
            validate(parse(inflate(body) if gzipped else body), 1, NOW)
        times.append(time.process_time() - started)
    return min(times)


@pytest.mark.parametrize("body", SHAPES.values(), ids=SHAPES)
def test_a_hostile_shape_is_judged_in_less_than_a_twentieth_of_a_second(body):
    """Parsed and validated: depth, keys, digits and texts, up to what a body may be (BAD-02)."""
    assert len(body) <= MAX_BODY_BYTES
    assert cpu_s(body) < MAX_CPU_S


@pytest.mark.parametrize("body", BOMBS.values(), ids=BOMBS)
def test_a_packed_bomb_is_judged_in_less_than_a_twentieth_of_a_second(body):
    """Given up where the limit is passed, not where the bomb ends (BAD-08)."""
    assert cpu_s(body, gzipped=True) < MAX_CPU_S
