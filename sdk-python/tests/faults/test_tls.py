"""A collector whose certificate is not right, or that does not speak TLS: nothing is sent to it."""

import datetime
import socket
import ssl
import struct

import pytest

trustme = pytest.importorskip("trustme")

SECRETS = (b"x-api-key", b"SECRET", b"secret-event", b"messageId")
HEAD = b"HTTP/1.1 202 Accepted\r\nContent-Length: 30\r\n\r\n"
ANSWER = b'{"eventCount":1,"rejected":[]}'
YESTERDAY = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=1)


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture
def trusted(authority, tmp_path, monkeypatch):
    """The client trusts one authority, in the way users say so."""
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))


def certificates(authority):
    return {
        "good": authority.issue_cert("localhost", "127.0.0.1"),
        "expired": authority.issue_cert("localhost", "127.0.0.1", not_after=YESTERDAY),
        "of another host": authority.issue_cert("other.example"),
        "of an unknown authority": trustme.CA().issue_cert("localhost", "127.0.0.1"),
    }


def speak_tls(certificate):
    """Answer as a collector, once the handshake is done."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)

    def talk(server, connection):
        with context.wrap_socket(connection, server_side=True) as secured:
            while server.read(secured):
                if server.received[-1].endswith(b"}"):
                    secured.sendall(HEAD + ANSWER)

    return talk


def speak_plain(server, connection):
    server.read(connection)
    connection.sendall(HEAD + ANSWER)


def stall(server, connection):
    server.read(connection)
    server.released.wait(30)


def reset(server, connection):
    server.read(connection)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_a_good_certificate_is_taken(trusted, authority, make_client, raw_server):
    """Else the other tests would show nothing."""
    server = raw_server(speak_tls(certificates(authority)["good"]))
    client = make_client(api_url=f"https://localhost:{server.port}")
    client.track("secret-event")

    assert client.flush(20)
    assert b"secret-event" in b"".join(server.received)
    client.shutdown()


@pytest.mark.parametrize("fault", ["expired", "of another host", "of an unknown authority"])
def test_a_wrong_certificate_gets_nothing(
    trusted, authority, make_client, raw_server, sdk_log, eventually, fault
):
    """The events wait, and are sent when the certificate is right; the log names the kind."""
    talks = [speak_tls(certificates(authority)[fault])]

    def talk(server, connection):
        talks[-1](server, connection)

    server = raw_server(talk)
    client = make_client(api_url=f"https://localhost:{server.port}")
    client.track("secret-event")
    assert not client.flush(0.5)
    eventually(lambda: server.connections >= 2)
    assert not b"".join(server.received)
    assert client.stats().queued + client.stats().spooled == 1
    [line] = [record for record in sdk_log.records if record.reason == "no_answer"]
    assert line.failure == "ConnectError"

    talks.append(speak_tls(certificates(authority)["good"]))
    eventually(lambda: client.flush(1), 30)
    assert b"secret-event" in b"".join(server.received)
    client.shutdown()


@pytest.mark.parametrize("talk", [speak_plain, stall, reset])
def test_a_server_without_tls_gets_nothing_in_clear(
    trusted, make_client, raw_server, eventually, sdk_log, talk
):
    """Not even after many tries: no attempt goes down to plain HTTP."""
    server = raw_server(talk)
    client = make_client(api_url=f"https://localhost:{server.port}", timeout_s=0.3)
    client.track("secret-event")
    assert not client.flush(0.5)
    eventually(lambda: server.connections >= 2)
    server.released.set()
    client.shutdown(0.5)

    # What does arrive is the hello of a handshake.
    assert all(data[:1] == b"\x16" for data in server.received if data)
    assert not [secret for secret in SECRETS if secret in b"".join(server.received)]
    assert "no_answer" in sdk_log.reasons()
    assert client.stats().delivered == 0
