"""Every way round the limits that we could think of (SEC-21); none is one."""

from __future__ import annotations

import pytest


def raw(site, dial, request: bytes) -> int:
    """Send *request* as it is; return the status."""
    wire = dial(site.port)
    wire.send(request)
    return int(wire.until(b"\r\n").split()[1])


BODY = b'{"batch":[{"type":"track","name":"e"}]}'


@pytest.mark.parametrize(
    "request_line",
    [
        b"POST //api/v1/events HTTP/1.1",
        b"POST /api/v1/%2e/events HTTP/1.1",
        b"POST /%61pi/v1/events HTTP/1.1",
        b"POST /api/v1/events/ HTTP/1.1",
        b"POST /API/v1/events HTTP/1.1",
        b"POST /api/v1/events?x=1 HTTP/1.1",
        b"PUT /api/v1/events HTTP/1.1",
        b"HEAD /api/v1/events HTTP/1.1",
        b"POST /api/v1/events HTTP/1.0",
    ],
)
def test_no_way_of_writing_the_request_is_a_way_round(new_site, dial, request_line):
    """A stranger is counted whatever the path, the method and the version look like (SEC-21)."""
    site = new_site(rate_limit_address_requests_per_minute=3)
    request = request_line + b"\r\nHost: h\r\nContent-Length: 0\r\n\r\n"

    answers = [raw(site, dial, request) for _ in range(5)]

    assert answers[:3].count(429) == 0
    assert answers[3:] == [429, 429]


@pytest.mark.parametrize(
    "head",
    [
        b"POST /api/v1/events HTTP/1.1\r\nX-API-KEY: %s\r\nContent-Length: %d\r\n",
        b"POST /api/v1/events HTTP/1.1\r\nx-ApI-kEy:  %s\r\nContent-Length: %d\r\n",
        b"POST /%%61pi/v1/events HTTP/1.1\r\nx-api-key: %s\r\nContent-Length: %d\r\n",
        b"POST /api/v1/events?a=%%2e HTTP/1.1\r\nx-api-key: %s\r\nContent-Length: %d\r\n",
        b"POST /api/v1/events HTTP/1.0\r\nx-api-key: %s\r\nContent-Length: %d\r\n",
        b"POST /api/v1/events HTTP/1.1\r\nX-Forwarded-For: 1.2.3.4\r\nx-api-key: %s\r\n"
        b"Content-Length: %d\r\n",
    ],
)
def test_a_key_is_counted_however_its_request_is_written(new_site, dial, head):
    """The same key in other letters of the header, another path, an older HTTP (SEC-21)."""
    site = new_site(rate_limit_requests_per_minute=3)
    request = head % (site.keys["ingest"].encode(), len(BODY))
    request += b"Host: h\r\nContent-Type: application/json\r\n\r\n" + BODY

    assert [raw(site, dial, request) for _ in range(5)] == [202] * 3 + [429] * 2


def test_chunked_bodies_are_counted_like_others(new_site, dial):
    """Events count when the body is there, in whatever pieces it came (SEC-21)."""
    site = new_site(rate_limit_events_per_minute=3)
    request = (
        b"POST /api/v1/events HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\nx-api-key: " + site.keys["ingest"].encode() + b"\r\n\r\n"
    )
    request += b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + b"0\r\n\r\n"

    assert [raw(site, dial, request) for _ in range(5)] == [202] * 3 + [429] * 2
