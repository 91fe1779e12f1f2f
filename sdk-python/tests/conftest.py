"""A collector that does as a test tells it, on a real socket, and clients that talk to it."""

import contextlib
import gzip
import http.server
import json
import logging
import os
import socket
import struct
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import dataclass, field

import pytest

import analytics_sdk
from analytics_sdk.default import DefaultClient

API_KEY = "ak_live_test0SECRET"


def wait_until(predicate, timeout_s=10.0):
    """Wait until *predicate* is true, and fail if it does not become so."""
    never = threading.Event()
    end = time.monotonic() + timeout_s
    while not (value := predicate()):
        assert time.monotonic() < end, "it did not happen in time"
        never.wait(0.005)
    return value


@pytest.fixture
def eventually():
    """The only way to wait in a test."""
    return wait_until


@dataclass
class Request:
    """What arrived at the collector."""

    path: str
    headers: dict
    raw: bytes
    at: float
    connection: int
    events: list = field(default_factory=list)
    sent_at: str = ""

    @property
    def ids(self):
        return [event["messageId"] for event in self.events]


def strict_json(text):
    """Parse JSON as RFC 8259 has it: no NaN, no lone surrogates."""

    def refuse(constant):
        raise ValueError(constant)

    value = json.loads(text.decode("utf-8"), parse_constant=refuse)
    repr(value).encode("utf-8")
    return value


class Reply:
    """The ways to answer a request; each is a function of the handler and the request."""

    @staticmethod
    def status(status, body="", **headers):
        content = body if isinstance(body, str) else json.dumps(body)

        def reply(handler, request):
            handler.answer(status, content.encode(), headers)

        return reply

    @staticmethod
    def accept(*rejected, duplicates=0, **headers):
        def reply(handler, request):
            refused = [index for index in rejected if index < len(request.events)]
            verdicts = [
                {"index": index, "code": "MISSING_NAME", "message": "no name"} for index in refused
            ]
            stored = [event for at, event in enumerate(request.events) if at not in refused]
            handler.server.collector.stored.extend(stored)
            body = {"eventCount": len(stored), "duplicates": duplicates, "rejected": verdicts}
            handler.answer(202, json.dumps(body).encode(), headers)

        return reply

    @staticmethod
    def hang(handler, request):
        handler.server.collector.released.wait(60)
        handler.close_connection = True

    @staticmethod
    def hold(handler, request):
        """Answer as usual, once released."""
        handler.server.collector.released.wait(60)
        Reply.accept()(handler, request)

    @staticmethod
    def close(handler, request):
        handler.close_connection = True

    @staticmethod
    def reset(handler, request):
        linger = struct.pack("ii", 1, 0)
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        handler.close_connection = True
        handler.server.to_reset.add(handler.connection)

    @staticmethod
    def cut_short(handler, request):
        handler.wfile.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: 500\r\n\r\n{")
        handler.close_connection = True

    @staticmethod
    def drip_header(handler, request):
        handler.drip(b"HTTP/1.1 202 Accepted\r\nX-Slow: ", b"a")

    @staticmethod
    def drip_body(handler, request):
        handler.drip(b"HTTP/1.1 202 Accepted\r\nContent-Length: 9999\r\n\r\n", b" ")

    @staticmethod
    def endless(handler, request):
        handler.drip(b"HTTP/1.1 202 Accepted\r\n\r\n", b" " * 65536, pause_s=0)

    @staticmethod
    def bomb(handler, request):
        """A small body that says it inflates; nobody should try."""
        body = gzip.compress(b'{"eventCount": 1}' + b" " * 1_000_000)
        handler.answer(202, body, {"Content-Encoding": "gzip"})


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_POST(self):
        collector = self.server.collector
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        if len(raw) < int(self.headers["Content-Length"]):
            # The program ended in the middle of sending.
            self.close_connection = True
            return
        request = Request(self.path, dict(self.headers), raw, time.monotonic(), id(self))
        body = gzip.decompress(raw) if self.headers.get("Content-Encoding") == "gzip" else raw
        document = strict_json(body)
        request.events, request.sent_at = document["batch"], document["sentAt"]
        with collector.lock:
            collector.requests.append(request)
            reply = collector.replies.pop(0) if collector.replies else collector.default_reply
        with contextlib.suppress(OSError):
            reply(self, request)

    def answer(self, status, body, headers):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def drip(self, start, drop, pause_s=0.02):
        self.close_connection = True
        self.wfile.write(start)
        while not self.server.collector.released.wait(pause_s):
            self.wfile.write(drop)
            self.wfile.flush()


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, *args):
        super().__init__(*args)
        self.to_reset = set()

    def shutdown_request(self, request):
        """End a connection: with a FIN, unless it is to be reset."""
        if request in self.to_reset:
            self.to_reset.remove(request)
            request.close()
        else:
            super().shutdown_request(request)

    def handle_error(self, request, client_address):
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            self.collector.errors.append(repr(error))


class Collector:
    """A scripted collector: answers with the script first, then with the default reply."""

    def __init__(self):
        self.lock = threading.Lock()
        self.requests, self.replies, self.stored, self.errors = [], [], [], []
        self.default_reply = Reply.accept()
        self.released = threading.Event()
        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.collector = self
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def script(self, *replies):
        self.replies.extend(replies)

    def always(self, reply):
        self.default_reply = reply

    @property
    def names(self):
        return [event.get("name") for event in self.stored]

    @property
    def sizes(self):
        return [len(request.events) for request in self.requests]

    def stop(self):
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        assert self.errors == []


@pytest.fixture(autouse=True)
def spool_dir(tmp_path, monkeypatch):
    """Each test has a spool of its own, and none the user's."""
    monkeypatch.setenv("ANALYTICS_SPOOL_DIR", str(tmp_path / "spool"))
    return tmp_path / "spool"


@pytest.fixture
def reply():
    """The ways a collector can answer."""
    return Reply


@pytest.fixture
def collector():
    """A collector on a free port."""
    collector = Collector()
    yield collector
    collector.stop()


@pytest.fixture
def closed_port():
    """The address of nobody, which nobody else gets meanwhile."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        yield listener.getsockname()[1]


@pytest.fixture
def make_client(collector):
    """Make clients of the collector that go with the test."""
    clients = []

    def make(**settings):
        settings = {"api_key": API_KEY, "api_url": collector.url, **settings}
        client = analytics_sdk.Client(**settings)
        clients.append(client)
        return client

    yield make
    collector.released.set()
    for client in clients:
        thread = client._worker._thread
        client.shutdown(1)
        if thread is not None:
            thread.join(15)
        assert_adds_up(client.stats())


def assert_adds_up(stats):
    """No event without an outcome, none with two."""
    outcomes = stats.delivered + stats.queued + stats.spooled + stats.rejected + stats.expired
    assert stats.taken == outcomes + sum(stats.dropped.values()), stats


@pytest.fixture
def adds_up():
    return assert_adds_up


@pytest.fixture
def analytics(collector, monkeypatch):
    """The module, as a program that just started finds it."""
    for name in [name for name in os.environ if name.startswith("ANALYTICS_")]:
        if name != "ANALYTICS_SPOOL_DIR":
            monkeypatch.delenv(name)
    place = DefaultClient()
    monkeypatch.setattr(analytics_sdk, "_default", place)
    yield analytics_sdk
    collector.released.set()
    client = place._place.get("client")
    if client is not None:
        client.shutdown(1)


class Listener(logging.Handler):
    def __init__(self):
        super().__init__(logging.DEBUG)
        self.records = []

    def emit(self, record):
        self.records.append(record)

    def reasons(self):
        return [record.reason for record in self.records]


@pytest.fixture(autouse=True)
def sdk_log(request):
    """What the SDK logs; an internal error that it swallowed fails the test."""
    listener = Listener()
    logger = logging.getLogger("analytics_sdk")
    logger.addHandler(listener)
    yield listener
    logger.removeHandler(listener)
    if "swallowed_errors" not in request.fixturenames:
        swallowed = {"internal", "worker_error"} & set(listener.reasons())
        assert not swallowed, [vars(record) for record in listener.records]


@pytest.fixture
def swallowed_errors():
    """For tests in which something raises where the SDK has to swallow it."""


@pytest.fixture
def run_program(collector):
    """Run a program that tracks, in a process of its own, and return what became of it."""

    def run(source, *arguments, timeout_s=90, **environment):
        program = "import os, sys, signal, threading, time\nimport analytics_sdk as analytics\n"
        program += textwrap.dedent(source)
        settings = {"ANALYTICS_API_URL": collector.url, "ANALYTICS_API_KEY": API_KEY}
        return subprocess.run(
            [sys.executable, "-u", "-c", program, *arguments],
            env={**os.environ, **settings, **environment},
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    return run
