"""Bodies that mean harm, and what the two parsers owe each other."""

from __future__ import annotations

import contextlib
import gzip
import json
import time
import tracemalloc
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analytics_collector._limits import MAX_BODY_BYTES
from analytics_collector.errors import Refusal
from analytics_collector.ingest.decode import inflate, parse

MIB = 1024 * 1024
# An ignored member with so many digits that the exact parser takes the body.
FORCE_EXACT = '"ignored": "0000000000000000000"'


def bomb(inflated_bytes: int) -> bytes:
    """Return gzip that would inflate to zeros; its end is missing, nobody should get there."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    one_mib = packer.compress(bytes(MIB)) + packer.flush(zlib.Z_FULL_FLUSH)
    return b"\x1f\x8b\x08\0\0\0\0\0\0\x03" + one_mib * (inflated_bytes // MIB)


def refusal_of(body: bytes, *, gzipped: bool = False) -> str:
    with pytest.raises(Refusal) as caught:
        parse(inflate(body) if gzipped else body)
    return caught.value.code


def test_a_bomb_of_a_gigabyte_never_becomes_more_than_a_mebibyte():
    """A stranger with a key costs the memory of one body, whatever the body would unpack to."""
    body = bomb(1024 * MIB)
    tracemalloc.start()
    try:
        code = refusal_of(body, gzipped=True)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert code == "BODY_TOO_LARGE"
    assert peak_bytes < 4 * MIB


def test_the_members_of_a_gzip_body_share_one_limit():
    """Sixteen members of a tenth of the limit each are too large together."""
    body = gzip.compress(bytes(MAX_BODY_BYTES // 10)) * 16

    assert refusal_of(body, gzipped=True) == "BODY_TOO_LARGE"


def test_a_body_of_exactly_the_limit_inflates():
    """The last byte that is allowed is allowed."""
    assert len(inflate(gzip.compress(bytes(MAX_BODY_BYTES)))) == MAX_BODY_BYTES
    assert refusal_of(gzip.compress(bytes(MAX_BODY_BYTES + 1)), gzipped=True) == "BODY_TOO_LARGE"


def test_forty_thousand_empty_members_cost_no_more_than_seventeen():
    """A body is given up at the member that is one too many, not at its last."""
    empty = gzip.compress(b"")

    assert refusal_of(empty * 17, gzipped=True) == "INVALID_ENCODING"
    few, many = (cpu_s(empty * n, gzipped=True) for n in (17, 40_000))
    assert many < 100 * few + 0.01  # what is left is copied, never inflated


@pytest.mark.parametrize(
    "hostile",
    [
        lambda n: b'{"batch":[' + b"[" * n,
        lambda n: b'{"batch":[' + b'{"a":' * (n // 5),
        lambda n: b'{"batch":[' + b"9" * n + b"]}",
        lambda n: b'{"batch":[1.' + b"9" * n + b"]}",
        lambda n: b'{"batch":[1e' + b"9" * n + b"]}",
        lambda n: b'{"batch":["' + b"\\u0000" * (n // 6) + b'"]}',
        lambda n: b'{"batch":["' + b"\\ud800" * (n // 6) + b'"]}',
        lambda n: b'{"batch":["' + b"\\" * n,
        lambda n: b'{"batch":[{' + b",".join(b'"%d":1' % k for k in range(n // 12)) + b"}]}",
        lambda n: b" " * n + b"{",
    ],
    ids=[
        "lists",
        "objects",
        "digits",
        "fraction",
        "exponent",
        "nul",
        "surrogates",
        "backslashes",
        "members",
        "blanks",
    ],
)
def test_the_time_for_a_hostile_body_grows_no_faster_than_the_body(hostile):
    """Eight times the bytes take about eight times as long, not sixty-four times."""
    small, large = cpu_s(hostile(128 * 1024)), cpu_s(hostile(1024 * 1024))

    assert large < 28 * small + 0.005


def cpu_s(body: bytes, *, gzipped: bool = False) -> float:
    """Return the least processor time of a few attempts at *body*."""
    times = []
    for _ in range(3):
        started = time.process_time()
        with contextlib.suppress(Refusal):
            parse(inflate(body) if gzipped else body)
        times.append(time.process_time() - started)
    return min(times)


@pytest.mark.parametrize(
    "event",
    [
        '{"type":"track","name":"a","messageId":"01935a2e-7c1b-7d10-a3a4-5b0c6f1c9d11"}',
        '{"timestamp":"2026-11-20T10:00:31.123456789Z","properties":{"n":999999999999999999}}',
        '{"properties":{"n":-12.5e300,"text":"\\u00e9\\ud83d\\ude00 \\\\"}}',
    ],
)
def test_an_ordinary_body_is_read_by_the_fast_parser(event):
    """The exact parser, ten times slower, is for bodies that the fast one could change."""
    assert not parse(f'{{"batch":[{event}]}}'.encode()).exact


@pytest.mark.parametrize(
    "event",
    ['{"n":18446744073709551616}', '{"n":1e400}', '{"t":"\\u0000"}', '{"t":"\\ud800"}'],
    ids=["integer", "float", "nul", "surrogate"],
)
def test_what_the_fast_parser_changes_or_refuses_is_read_exactly(event):
    """A number out of range or a broken text costs its own event at most, never the body."""
    batch = parse(f'{{"batch":[{event}, {{"fine": 1}}]}}'.encode())

    assert batch.exact
    assert batch.events[1] == {"fine": 1}


numbers = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(st.lists(values, min_size=1, max_size=4))
def test_both_parsers_read_the_same(events):
    """Which parser a body meets never shows in what is stored."""
    text = json.dumps(events)

    fast = parse(f'{{"batch": {text}}}'.encode())
    exact = parse(f'{{{FORCE_EXACT}, "batch": {text}}}'.encode())

    assert exact.exact
    assert repr(exact.events) == repr(fast.events)
