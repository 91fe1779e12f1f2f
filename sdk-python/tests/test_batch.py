import gzip
import json
from datetime import datetime, timedelta, timezone

from analytics_sdk import batch
from analytics_sdk._limits import GZIP_MIN_BYTES, MAX_BODY_BYTES

MOMENT = datetime(2026, 11, 20, 10, 0, 31, 120_000, tzinfo=timezone.utc)


def test_events_go_into_the_body_as_they_are():
    """Nothing is encoded twice."""
    body = batch.pack([b'{"a":1}', b'{"b":2}'], MOMENT)

    assert body.content == b'{"batch":[{"a":1},{"b":2}],"sentAt":"2026-11-20T10:00:31.120Z"}'
    assert not body.is_gzip


def test_the_time_of_sending_is_utc():
    """A collector corrects clocks by it, so it must not depend on where we are."""
    elsewhere = MOMENT.astimezone(timezone(timedelta(hours=9)))

    assert batch.pack([b"{}"], elsewhere) == batch.pack([b"{}"], MOMENT)


def test_large_bodies_are_compressed():
    """A body from the limit on travels as gzip, and says the same."""
    event = b'{"name":"%s"}' % (b"a" * GZIP_MIN_BYTES)
    body = batch.pack([event], MOMENT)

    assert body.is_gzip
    assert len(body.content) < len(event)
    assert json.loads(gzip.decompress(body.content))["batch"] == [json.loads(event)]
    assert body.content[8] == 4, "as RFC 1952 marks the fastest"


def test_a_full_body_is_within_the_limit():
    """What the buffer may take for one body fits, envelope, commas and all."""
    events = [b"x" * 1023] * (batch.MAX_EVENTS_BYTES // 1024)
    rest = batch.MAX_EVENTS_BYTES - 1024 * len(events)
    events.append(b"y" * (rest - 1))
    body = batch.pack(events, MOMENT)

    assert MAX_BODY_BYTES - 4 <= len(gzip.decompress(body.content)) <= MAX_BODY_BYTES
