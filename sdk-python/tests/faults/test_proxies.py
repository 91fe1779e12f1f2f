"""Proxies that the environment names: dead, forbidding, or with a page of their own."""

import pytest

HTML = b"<html><title>Please log in</title></html>"
SECRETS = (b"SECRET", b"x-api-key", b"secret-event", b"messageId")


def answer(status_line, body=HTML):
    head = status_line + b"\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n" % len(body)

    def talk(server, connection):
        while server.read(connection):
            connection.sendall(head + body)

    return talk


def hang(server, connection):
    server.read(connection)
    server.released.wait(30)


FAULTS = {
    "it wants a password": answer(b"HTTP/1.1 407 Proxy Authentication Required"),
    "it forbids": answer(b"HTTP/1.1 403 Forbidden"),
    "it has a page of its own": answer(b"HTTP/1.1 200 OK"),
    "it hangs": hang,
}


@pytest.fixture
def environment(monkeypatch):
    """Set what proxies are known by, and nothing else of the kind."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    return monkeypatch.setenv


@pytest.mark.parametrize("fault", FAULTS)
def test_a_proxy_for_https_sees_no_key(
    environment, make_client, raw_server, eventually, sdk_log, fault
):
    """It is asked for a tunnel, and nothing goes to it that belongs inside; the events wait."""
    proxy = raw_server(FAULTS[fault])
    environment("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
    client = make_client(api_url="https://collector.example", timeout_s=0.5)
    client.track("secret-event")
    assert not client.flush(0.3)
    eventually(lambda: proxy.connections >= 2)
    proxy.released.set()
    client.shutdown(0.5)

    seen = b"".join(proxy.received)
    assert seen.startswith(b"CONNECT collector.example:443 ")
    assert not [secret for secret in SECRETS if secret in seen]
    assert client.stats().delivered == 0
    assert "no_answer" in sdk_log.reasons()


def test_a_dead_proxy_keeps_the_events(environment, make_client, closed_port, eventually):
    """There is no way round it that the user did not name."""
    environment("HTTPS_PROXY", f"http://127.0.0.1:{closed_port}")
    client = make_client(api_url="https://collector.example")
    client.track("secret-event")

    assert not client.flush(0.3)
    eventually(lambda: client.stats().requests >= 2)
    assert client.stats().queued + client.stats().spooled == 1


def test_a_page_of_a_proxy_is_no_delivery(
    environment, make_client, raw_server, eventually, sdk_log
):
    """With plain HTTP it answers in the collector's place."""
    proxy = raw_server(FAULTS["it has a page of its own"])
    environment("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
    client = make_client(api_url="http://collector.example")
    client.track("secret-event")
    assert not client.flush(0.3)
    eventually(lambda: client.stats().requests >= 2)
    client.shutdown(0.2)

    assert client.stats().delivered == 0
    assert "unavailable" in sdk_log.reasons()


def test_no_proxy_goes_round_it(environment, make_client, collector, closed_port):
    """A collector beside the program is not behind a proxy."""
    environment("HTTP_PROXY", f"http://127.0.0.1:{closed_port}")
    environment("NO_PROXY", "127.0.0.1")
    client = make_client()
    client.track("one")

    assert client.flush(20)
    assert collector.names == ["one"]
