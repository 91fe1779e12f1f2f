"""`serve` in its other shapes: several processes, a Unix socket, TLS."""

from __future__ import annotations

import gzip
import os
import signal
import ssl
import stat
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import httpx
import pytest
import trustme

from harness.collector import COMMAND, Collector, Serve
from harness.processes import Program, offspring

Eventually = Callable[..., None]


def a_batch() -> dict[str, Any]:
    return {"batch": [{"type": "track", "name": "e", "messageId": str(uuid4())}]}


def send(client: httpx.Client, key: str) -> httpx.Response:
    return client.post("/api/v1/events", json=a_batch(), headers={"x-api-key": key})


@pytest.fixture
def workers(collector: Collector) -> Serve:
    """A server of two processes that nobody has started yet."""
    return collector.serve(workers=2)


def test_several_processes_serve_on_one_port(workers: Serve, collector: Collector) -> None:
    """And a fresh connection may meet any of them; what they count adds up."""
    key = collector.database.new_key()
    before = collector.database.event_count()
    with workers:
        children = offspring(workers.pid)
        for _ in range(40):
            # Without the certificates for https, which take longer to load than any answer.
            with httpx.Client(base_url=workers.url, verify=False) as client:
                assert send(client, key).status_code == 202
        counted = httpx.get(f"{workers.url}/metrics").text
        code = workers.stop()

    assert len(children) == 2
    assert 'analytics_events_total{outcome="accepted"} 40.0' in counted
    assert code == 0
    assert collector.database.event_count() - before == 40


def test_a_process_that_dies_is_started_again(
    workers: Serve, collector: Collector, eventually: Eventually
) -> None:
    """The others go on meanwhile."""
    key = collector.database.new_key()
    with workers:
        first, second = offspring(workers.pid)
        os.kill(first, signal.SIGKILL)
        with httpx.Client(base_url=workers.url) as client:
            assert send(client, key).status_code == 202
        eventually(lambda: len(set(offspring(workers.pid)) - {first}) == 2)

        assert second in offspring(workers.pid)
        assert workers.stop() == 0


def test_no_process_outlives_its_parent(workers: Serve, eventually: Eventually) -> None:
    """Also when the parent had no time to say so."""
    with workers:
        children = offspring(workers.pid)
        workers.kill()
        eventually(lambda: not any(Path(f"/proc/{child}").exists() for child in children))


def test_processes_that_cannot_start_end_the_whole(collector: Collector, tmp_path: Path) -> None:
    """With their reason, and without a loop of restarts."""
    settings = {
        "ANALYTICS_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing",
        "ANALYTICS_REDIS_URL": "redis://127.0.0.1:1",
        "ANALYTICS_SECRET": "a secret for the tests",
    }
    command = [*COMMAND, "serve", "--port", "0", "--workers", "2"]
    with Program(command, tmp_path, "serve", settings) as program:
        code = program.wait()

    assert code == 1
    assert "could not start" in program.log
    assert "Traceback" not in program.log


def test_it_listens_on_a_unix_socket(
    collector: Collector, tmp_path: Path, eventually: Eventually
) -> None:
    """For its user and their group; it goes with the server, and one left by a kill is replaced."""
    path = tmp_path / "collector.sock"
    key = collector.database.new_key()
    server = collector.serve(uds=path)
    transport = httpx.HTTPTransport(uds=str(path))
    with httpx.Client(base_url="http://collector", transport=transport) as client:
        server.start()
        try:
            eventually(lambda: '"Listening"' in server.log)
            server.kill()
            assert path.is_socket()
            server.start()
            eventually(lambda: '"Listening"' in server.log)

            assert send(client, key).status_code == 202
            assert stat.S_IMODE(path.stat().st_mode) == 0o660
            second = collector.serve(uds=path)
            second.log_path = second.out_path = tmp_path / "second.log"
            second.start()
            assert second.wait() == 1
            assert "another server answers there" in second.log
            assert server.stop() == 0
            assert not path.exists()
        finally:
            server.end()


def test_it_speaks_tls(collector: Collector, tmp_path: Path, eventually: Eventually) -> None:
    """And says to browsers that they shall insist on it."""
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    (tmp_path / "cert.pem").write_bytes(b"".join(b.bytes() for b in certificate.cert_chain_pems))
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    server = collector.serve(tls_cert=tmp_path / "cert.pem", tls_key=tmp_path / "key.pem")
    server.start()
    try:
        eventually(lambda: '"Listening"' in server.log)
        port = server._port_in_log()
        trusted = ssl.create_default_context(cafile=tmp_path / "ca.pem")
        with httpx.Client(base_url=f"https://127.0.0.1:{port}", verify=trusted) as client:
            answer = send(client, collector.database.new_key())
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://127.0.0.1:{port}/livez")
        assert server.stop() == 0
    finally:
        server.end()

    assert answer.status_code == 202
    assert answer.headers["strict-transport-security"] == "max-age=31536000"


def test_half_of_tls_is_refused(collector: Collector, tmp_path: Path) -> None:
    """A certificate without its key is a mistake, not a server without TLS."""
    server = collector.serve(tls_cert=tmp_path / "cert.pem")
    server.start()
    try:
        assert server.wait() == 1
        assert "ANALYTICS_TLS_CERT and ANALYTICS_TLS_KEY need each other" in server.log
    finally:
        server.end()


def test_its_spans_go_where_the_environment_says(
    collector: Collector, eventually: Eventually
) -> None:
    """In the trace of the sender, whom their `traceparent` names; watching leaves none."""
    trace_id = uuid4().bytes
    server = collector.serve()
    with SpanReceiver() as receiver:
        server.environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = receiver.url
        with server:
            answer = httpx.post(
                f"{server.url}/api/v1/events",
                json=a_batch(),
                headers={
                    "x-api-key": collector.database.new_key(),
                    "traceparent": f"00-{trace_id.hex()}-00f067aa0ba902b7-01",
                },
            )
            assert server.stop() == 0
        eventually(lambda: receiver.bodies)

    assert answer.status_code == 202
    sent = b"".join(receiver.bodies)
    assert trace_id in sent
    assert b"POST" in sent and b"analytics-collector" in sent
    assert b"readyz" not in sent


class SpanReceiver:
    """Takes what an exporter of OTLP sends over HTTP."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        bodies = self.bodies

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                zipped = self.headers.get("Content-Encoding") == "gzip"
                bodies.append(gzip.decompress(body) if zipped else body)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
