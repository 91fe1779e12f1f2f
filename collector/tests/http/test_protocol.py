"""The protocol of the server: no connection costs much, and each request gets one answer."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import orjson
import pytest

from analytics_collector._limits import MAX_HEADER_BYTES
from analytics_collector.http.protocol import HardenedProtocol

MIB = 1024 * 1024
GET = b"GET /%s HTTP/1.1\r\nHost: h\r\n\r\n"


async def echo(scope, receive, send):
    """Answer with the path and the size of the body, once all of it is there."""
    size_bytes, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size_bytes += len(message.get("body", b""))
        more = message.get("more_body", False)
    body = f"{scope['path']} {size_bytes};".encode()
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class HastyForHeaders(HardenedProtocol):
    """The protocol as it is shipped, with less patience for headers."""

    header_deadline_s = 0.25
    request_deadline_s = 60.0


class HastyForBodies(HardenedProtocol):
    """The protocol as it is shipped, with less patience for bodies."""

    header_deadline_s = 60.0
    request_deadline_s = 0.25


class HastyForReaders(HardenedProtocol):
    """The protocol as it is shipped, with less patience for those who do not read."""

    response_deadline_s = 0.5

    def connection_made(self, transport):
        super().connection_made(transport)
        self.timeout_keep_alive = 0.5


async def long_answer(scope, receive, send):
    """Answer with 16 MiB, more than the buffers of both ends hold, or with a small part of it."""
    body = b"x" * (20_000 if scope["path"] == "/part" else 16 * MIB)
    headers = [(b"content-length", b"%d" % len(body))]
    if scope["path"] == "/last":
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture(scope="module")
def reading_port(host):
    """Return the port of a server that does not wait for readers."""
    return host.serve(long_answer, HastyForReaders)


@pytest.fixture(scope="module")
def patient_port(host):
    """Return the port of a server with the deadlines that are shipped."""
    return host.serve(echo)


@pytest.fixture(scope="module")
def hasty_ports(host):
    """Return the ports of two servers, one that waits for no headers and one for no body."""
    return host.serve(echo, HastyForHeaders), host.serve(echo, HastyForBodies)


@pytest.fixture
def open_connections():
    """Tell how many connections a server has; one that the server has reset is none."""
    if not Path("/proc/net/tcp").exists():
        pytest.skip("reads /proc/net")

    def count(port):
        wanted = f":{port:04X}"
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        return sum(row[1].endswith(wanted) and row[3] == "01" for row in rows)

    return count


@pytest.fixture
def wire(hasty_ports, dial):
    """Return a connection to a server that does not wait for headers."""
    return dial(hasty_ports[0])


@pytest.fixture
def body_wire(hasty_ports, dial):
    """Return a connection to a server that does not wait for a body."""
    return dial(hasty_ports[1])


def refusal(answer: bytes) -> tuple[int, str]:
    """Return status and code of the one *answer*, which has the form of all refusals."""
    assert len(statuses(answer)) == 1, answer
    head, _, body = answer.partition(b"\r\n\r\n")
    refused = orjson.loads(body)
    assert set(refused) == {"error", "code"}
    assert b"content-type: application/json" in head
    assert b"connection: close" in head
    return statuses(answer)[0], refused["code"]


def statuses(received: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3})", received)]


def trickle(wire, text: bytes, times: int = 400) -> threading.Thread:
    """Send *text* again and again, a byte or two a moment, until the server has enough of it."""
    pause = threading.Event()

    def send() -> None:
        try:
            for _ in range(times):
                wire.send(text)
                pause.wait(0.05)
        except OSError:
            pass

    thread = threading.Thread(target=send)
    thread.start()
    return thread


def test_headers_that_trickle_in_are_given_up(wire):
    """A slow loris holds a connection for the deadline, however busy it looks."""
    wire.send(b"GET / HTTP/1.1\r\nHost: h\r\n")
    sender = trickle(wire, b"a: b\r\n")

    assert refusal(wire.rest()) == (408, "REQUEST_TIMEOUT")
    sender.join()


def test_a_body_that_trickles_in_is_given_up(body_wire):
    """Neither does a body keep a connection for longer than the deadline."""
    body_wire.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n")
    sender = trickle(body_wire, b"x")

    assert refusal(body_wire.rest()) == (408, "REQUEST_TIMEOUT")
    sender.join()


def test_a_connection_that_says_nothing_is_closed(wire):
    """To connect is not enough to be waited for."""
    wire.rest()  # or the timeout of the socket fails the test


def test_a_later_request_has_a_deadline_too(wire):
    """A good first request buys no patience for the second."""
    wire.send(GET % b"1")
    wire.until(b";")
    wire.send(b"GET /2 HTTP/1.1\r\n")

    assert refusal(wire.rest()) == (408, "REQUEST_TIMEOUT")


def test_a_client_that_is_silent_between_requests_keeps_its_connection(wire):
    """The deadlines are for what has begun; a client that flushes now and then is welcome."""
    wire.send(GET % b"1")
    wire.until(b";")
    threading.Event().wait(3 * HastyForHeaders.header_deadline_s)
    wire.send(GET % b"2")

    assert statuses(wire.until(b"/2 0;")) == [200]


def test_an_endless_header_is_refused_before_it_fills_memory(patient_port, dial):
    """A stranger's 200 MB header costs what a socket buffers, not 200 MB."""
    wire = dial(patient_port)
    sent = 0
    answer = b""
    try:
        wire.send(b"GET / HTTP/1.1\r\nHost: h\r\na: ")
        while sent < 200 * MIB:
            wire.send(b"x" * MIB)
            sent += MIB
    except OSError:
        answer = wire.rest()

    assert sent < 32 * MIB  # the buffers of both ends of a local connection
    assert statuses(answer) in ([], [431])  # a reset may overtake the answer


@pytest.mark.parametrize(
    "headers",
    [
        b"a: b\r\n" * (MAX_HEADER_BYTES // 6),
        b"a: " + b"x" * MAX_HEADER_BYTES + b"\r\n",
        b"x" * MAX_HEADER_BYTES + b": a\r\n",
    ],
    ids=["many", "a long value", "a long name"],
)
@pytest.mark.parametrize("complete", [True, False])
def test_headers_beyond_the_limit_are_refused(patient_port, dial, headers, complete):
    """However they are made up, complete or not, and on a later request as on the first."""
    wire = dial(patient_port)
    for _ in range(2):
        wire.send(GET % b"good")
        wire.until(b";")
    wire.send(b"GET / HTTP/1.1\r\nHost: h\r\n" + headers + b"\r\n" * complete)

    assert refusal(wire.rest()) == (431, "HEADERS_TOO_LARGE")


def test_the_address_counts_as_a_header(patient_port, dial):
    """An endless URL is no way around the limit."""
    wire = dial(patient_port)
    wire.send(b"GET /" + b"x" * MAX_HEADER_BYTES + b" HTTP/1.1\r\n\r\n")

    assert refusal(wire.rest()) == (431, "HEADERS_TOO_LARGE")


def test_headers_just_within_the_limit_are_taken(patient_port, dial):
    """A request with large cookies in front of us still gets through."""
    wire = dial(patient_port)
    wire.send(b"GET /1 HTTP/1.1\r\nHost: h\r\na: " + b"x" * (MAX_HEADER_BYTES - 200) + b"\r\n\r\n")

    assert statuses(wire.until(b";")) == [200]


def test_the_limit_holds_for_each_request_and_not_for_the_connection(patient_port, dial):
    """A connection that lives long is not refused for the sum of its headers."""
    wire = dial(patient_port)
    for _ in range(5):
        wire.send(b"GET /1 HTTP/1.1\r\nHost: h\r\na: " + b"x" * 10_000 + b"\r\n\r\n")

        assert statuses(wire.until(b";")) == [200]


def test_a_body_larger_than_the_limit_of_headers_is_no_header(patient_port, dial):
    """What counts for headers does not count for bodies, in one piece or in many."""
    wire = dial(patient_port)
    head = b"POST /1 HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n"
    wire.send(head % 60_000 + b"x" * 60_000)
    assert b"/1 60000;" in wire.until(b";")
    wire.send(head % MIB)
    wire.send(b"x" * MIB)

    assert b"/1 1048576;" in wire.until(b";")


def test_requests_sent_together_are_answered_in_their_order(patient_port, dial):
    """Whoever sends several at once gets all answers, each to its own."""
    wire = dial(patient_port)
    wire.send(b"".join(GET % b"%d" % n for n in range(20)))

    answers = wire.until(b"/19 0;")
    assert re.findall(rb"/(\d+) 0;", answers) == [b"%d" % n for n in range(20)]


def test_the_limit_holds_for_each_of_the_requests_sent_together(patient_port, dial):
    """Three requests in one piece may each have headers of half the limit."""
    wire = dial(patient_port)
    padding = b"x" * (MAX_HEADER_BYTES // 2)
    wire.send(b"".join(b"GET /%d HTTP/1.1\r\na: %s\r\n\r\n" % (n, padding) for n in range(3)))

    assert statuses(wire.until(b"/2 0;")) == [200] * 3


def test_the_beginning_of_a_next_request_does_not_count_what_came_before(patient_port, dial):
    """A request with a large body and half of the next in one piece: both are answered."""
    wire = dial(patient_port)
    body = b"x" * 2 * MAX_HEADER_BYTES
    wire.send(
        b"POST /1 HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(body)
        + body
        + b"GET /2 HTTP/1.1\r\nHo"
    )
    first = wire.until(b";")
    wire.send(b"st: h\r\n\r\n")

    assert b"/1 32768;" in first
    assert b"/2 0;" in wire.until(b"/2 0;")


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"HELLO\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\na: \x00\r\n\r\n",
        b"GET / HTTP/1.1\r\na b: c\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"\0" * 100,
    ],
    ids=[
        "tls",
        "words",
        "version",
        "no-colon",
        "nul",
        "blank",
        "negative",
        "two-lengths",
        "overflow",
        "chunk",
        "zeros",
    ],
)
def test_what_is_no_http_gets_one_refusal(patient_port, dial, garbage):
    """A confused client reads in JSON that its request was malformed, and the connection ends."""
    wire = dial(patient_port)
    wire.send(garbage)

    assert refusal(wire.rest()) == (400, "INVALID_REQUEST")


@pytest.mark.parametrize(
    "smuggled",
    [
        b"Content-Length: 40\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + GET % b"smuggled",
        b"Transfer-Encoding: chunked\r\nContent-Length: 40\r\n\r\n0\r\n\r\n" + GET % b"smuggled",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + GET % b"smuggled",
        b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + GET % b"smuggled",
        b"Transfer-Encoding: xchunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + GET % b"smuggled",
        b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + GET % b"smuggled",
        b"Content-Length: 0\r\nContent-Length: 40\r\n\r\n" + GET % b"smuggled",
    ],
    ids=["cl.te", "te.cl", "cl.te short", "te list", "te unknown", "te blank", "cl.cl"],
)
def test_a_request_hidden_in_another_is_never_answered(patient_port, dial, smuggled):
    """Where two readers could see one request or two, we see none."""
    wire = dial(patient_port)
    wire.send(b"POST /1 HTTP/1.1\r\nHost: h\r\n" + smuggled)
    wire.connection.shutdown(1)

    answer = wire.rest()
    assert len(statuses(answer)) <= 1
    assert b"smuggled" not in answer


@pytest.mark.parametrize("path", [b"first", b"last"])
def test_a_client_that_does_not_read_its_answer_is_cut_off(
    reading_port, dial, open_connections, eventually, path
):
    """Whoever asks for much and takes nothing holds memory for the deadline and no longer."""
    wire = dial(reading_port)
    wire.send(GET % path)
    eventually(lambda: open_connections(reading_port))
    eventually(lambda: not open_connections(reading_port), 10)

    assert len(wire.rest()) < 16 * MIB


def test_a_client_that_pipelines_and_never_reads_is_cut_off(
    reading_port, dial, open_connections, eventually
):
    """Many small answers that nobody takes are as one that is large."""
    wire = dial(reading_port)
    wire.connection.settimeout(0.5)
    request = b"GET /part HTTP/1.1\r\nHost: h\r\na: " + b"x" * 10_000 + b"\r\n\r\n"
    sent = 0
    try:
        while sent < 64 * MIB:
            sent += wire.connection.send(request)
    except OSError:
        pass  # it takes no more, or is closed already
    eventually(lambda: not open_connections(reading_port), 10)

    assert sent < 64 * MIB


def test_a_client_that_reads_slowly_gets_all_of_its_answer(reading_port, dial):
    """The deadline is for standing still, not for being slow."""
    wire = dial(reading_port)
    wire.send(GET % b"last")
    pause = threading.Event()
    received = 0
    while chunk := wire.connection.recv(MIB):
        received += len(chunk)
        pause.wait(0.02)

    assert received > 16 * MIB
