import socket
import time

import httpx
import pytest
import respx

from analytics_sdk.batch import Body
from analytics_sdk.transport import Transport
from analytics_sdk.version import __version__

BODY = Body(b'{"batch":[{"messageId":"m"}],"sentAt":"2026-11-20T10:00:31.120Z"}', is_gzip=False)


@pytest.fixture
def transport(collector):
    with Transport(api_key="ak_live_1", api_url=collector.url) as transport:
        yield transport


def test_a_request_is_what_the_wire_asks_for(transport, collector):
    """Address, key, type and who we are."""
    answer = transport.post(BODY, 5)

    assert answer.status == 202
    [request] = collector.requests
    assert request.path == "/api/v1/events"
    assert request.raw == BODY.content
    headers = {name.lower(): value for name, value in request.headers.items()}
    assert headers["x-api-key"] == "ak_live_1"
    assert headers["content-type"] == "application/json"
    assert headers["user-agent"] == f"analytics-sdk-python/{__version__}"
    assert headers["accept-encoding"] == "identity"
    assert "content-encoding" not in headers


def test_a_connection_is_kept(transport, collector):
    """A request does not cost a handshake."""
    for _ in range(3):
        transport.post(BODY, 5)

    assert len({request.connection for request in collector.requests}) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(transport, collector, reply, status):
    """The key and the events stay where they were sent."""
    collector.script(reply.status(status, Location=f"{collector.url}/elsewhere"))
    answer = transport.post(BODY, 5)

    assert answer.status == status
    assert len(collector.requests) == 1


@pytest.mark.parametrize(
    ("fault", "failure"),
    [
        ("close", "RemoteProtocolError"),
        ("reset", "ReadError"),
        ("cut_short", "RemoteProtocolError"),
    ],
)
def test_a_broken_connection_is_no_answer(transport, collector, reply, fault, failure):
    """And the next request has a new one."""
    collector.script(getattr(reply, fault))
    answer = transport.post(BODY, 5)

    assert (answer.status, answer.failure) == (None, failure)
    assert transport.post(BODY, 5).status == 202


def test_nobody_there_is_no_answer(closed_port):
    """Connection refused is told by its kind."""
    with Transport(api_key="k", api_url=f"http://127.0.0.1:{closed_port}") as transport:
        assert transport.post(BODY, 5).failure == "ConnectError"


@pytest.mark.parametrize("fault", ["hang", "drip_header", "drip_body"])
def test_one_deadline_holds_for_the_whole_request(transport, collector, reply, fault):
    """A server that sends a byte now and then does not keep us."""
    collector.script(getattr(reply, fault))
    started_at = time.monotonic()
    answer = transport.post(BODY, 0.3)

    assert answer.status is None
    # The rest is for a busy machine: without the deadline it would be a minute.
    assert time.monotonic() - started_at < 20


def test_one_deadline_holds_for_a_server_that_does_not_read():
    """A body that does not go out ends as an answer that does not come."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with Transport(api_key="k", api_url=f"http://127.0.0.1:{port}") as transport:
            answer = transport.post(Body(b"x" * 50_000_000, is_gzip=False), 0.3)

    assert answer.failure == "WriteTimeout"


def test_an_endless_answer_is_cut(transport, collector, reply):
    """After 64 KiB it is not a collector's."""
    collector.script(reply.endless)

    assert transport.post(BODY, 5).failure == "AnswerTooLarge"


def test_an_answer_is_not_inflated(transport, collector, reply):
    """We asked for none, and a small one can inflate to gigabytes."""
    collector.script(reply.bomb)

    assert transport.post(BODY, 5).body.startswith(b"\x1f\x8b")


def test_retry_after_is_brought_back(transport, collector, reply):
    """The decision needs it."""
    collector.script(reply.status(429, Retry_After="7"))

    assert transport.post(BODY, 5).retry_after == "7"


@respx.mock
def test_an_address_may_have_a_path():
    """A collector behind a gateway."""
    route = respx.post("https://gateway.example/analytics/api/v1/events").respond(202)
    with Transport(api_key="k", api_url="https://gateway.example/analytics") as transport:
        transport.post(Body(b"zipped", is_gzip=True), 5)

    assert route.calls.last.request.headers["content-encoding"] == "gzip"


def test_a_user_may_bring_the_transport():
    """For tests, proxies and certificates of one's own."""
    mine = httpx.MockTransport(lambda request: httpx.Response(503, text="mine"))
    with Transport(api_key="k", api_url="http://a", http_transport=mine) as transport:
        answer = transport.post(BODY, 5)

    assert (answer.status, answer.body) == (503, b"mine")
