"""Real servers for the web integrations, and a look at every event that arrived."""

import gc
import json
import os
import socket
import subprocess
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import httpx
import jsonschema_rs
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
SCHEMA = Path(__file__).parents[3] / "spec" / "schema" / "event.json"


class WebServer(ThreadingMixIn, WSGIServer):
    """A thread a request, as gunicorn's gthread has it."""

    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request, client_address):
        """Say nothing: a client that hangs up is part of a test."""


class QuietHandler(WSGIRequestHandler):
    def log_message(self, *args):
        pass

    def get_stderr(self):
        return self.server.errors


class Errors:
    """Where an application's tracebacks go."""

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text

    def flush(self):
        pass


@pytest.fixture
def serve_wsgi():
    """Serve WSGI applications on free ports, with threads; returns the address."""
    servers = []

    def serve(app):
        server = WebServer(("127.0.0.1", 0), QuietHandler)
        server.errors = Errors()
        server.set_app(app)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}"

    yield serve
    for server, thread in servers:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def serve_asgi():
    """Serve ASGI applications with uvicorn on free ports; returns the address."""
    uvicorn = pytest.importorskip("uvicorn")
    servers = []

    def serve(app, lifespan="off"):
        config = uvicorn.Config(app, log_level="critical", ws="none", lifespan=lifespan)
        server = uvicorn.Server(config)
        listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        servers.append((server, thread, listener))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield serve
    for server, thread, listener in servers:
        server.should_exit = True
        thread.join()
        listener.close()


@pytest.fixture
def run_example(collector, eventually, tmp_path):
    """Start an example of the shop by *command*, in which PORT is replaced; returns its address."""
    processes = []

    def is_up(url):
        with suppress(httpx.HTTPError, ValueError):
            # Without the certificates for https, which take longer to load than any answer.
            return httpx.get(f"{url}/health", verify=False).json() == {"status": "ok"}

    def start(command, given):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        arguments = [each.replace("PORT", str(port)) for each in command]
        with (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, *arguments], stdout=log, stderr=log, **given
            )
        processes.append(process)
        url = f"http://127.0.0.1:{port}"
        eventually(lambda: process.poll() is not None or is_up(url), 30)
        return None if process.poll() is not None else url

    def run(*command, first=None):
        environment = {
            **os.environ,
            "ANALYTICS_API_URL": collector.url,
            "ANALYTICS_API_KEY": "ak_live_test0SECRET",
            "ANALYTICS_FLUSH_INTERVAL_S": "0.05",
            "SHOP_DATABASE": str(tmp_path / "shop"),
        }
        given = {"cwd": EXAMPLES, "env": environment}
        if first is not None:
            subprocess.run([sys.executable, *first], check=True, capture_output=True, **given)
        # Between our look and its start somebody else may take the port.
        url = start(command, given) or start(command, given)
        assert url is not None, (tmp_path / "log").read_text()
        return url

    yield run
    for process in processes:
        process.terminate()
        process.wait(20)


@pytest.fixture
def buyers(collector, eventually):
    """Log in and buy at an example of the shop, see its events, and return whose they are."""

    def visit(url):
        cookies = {"analytics_session_id": "s-1"}
        with httpx.Client(base_url=url, cookies=cookies) as http:
            http.post("/login/ada")
            assert http.post("/orders/teapot").json() == {"sold": "teapot", "to": "ada"}
            assert http.post("/orders/car").status_code == 404
        eventually(lambda: len(collector.stored) == 5)
        assert collector.names == [
            *(None, "POST /login/{name}", "order_placed"),
            *("POST /orders/{product}", "POST /orders/{product}"),
        ]
        assert {event["sessionId"] for event in collector.stored} == {"s-1"}
        return {event["userId"] for event in collector.stored}

    return visit


@pytest.fixture
def outlives():
    """Tell whether something that only *use* gets is still there when it has ended."""

    class Thing:
        pass

    def is_alive(use):
        # What is part of a cycle stays until the collector comes by, maybe minutes.
        gc.collect()
        gc.disable()
        try:
            thing = Thing()
            reference = weakref.ref(thing)
            use(thing)
            del thing
            return reference() is not None
        finally:
            gc.enable()

    return is_alive


@pytest.fixture
def client(make_client):
    """The client that the applications of a test track with."""
    return make_client()


@pytest.fixture
def arrived(collector, eventually):
    """
    Return the events that arrived, once *client* has sent all, and *count* if that is given.

    A server may answer a request before it tracks its event.
    """

    def have_arrived(client, count):
        assert client.flush()
        return count is None or len(collector.stored) >= count

    def events(client, count=None):
        eventually(lambda: have_arrived(client, count))
        assert count in (None, len(collector.stored)), collector.names
        return list(collector.stored)

    return events


@pytest.fixture(autouse=True)
def _all_are_as_the_spec_has_them(request):
    has_collector = "collector" in request.fixturenames
    collector = request.getfixturevalue("collector") if has_collector else None
    yield
    if collector is not None:
        validator = jsonschema_rs.validator_for(json.loads(SCHEMA.read_text()))
        for event in collector.stored:
            validator.validate(event)


@pytest.fixture
def together():
    """Call a function with each of *arguments* at the same time; returns what it gave."""

    def run(function, arguments):
        barrier = threading.Barrier(len(arguments))

        def work(argument):
            barrier.wait(20)
            return function(argument)

        with ThreadPoolExecutor(len(arguments)) as pool:
            return list(pool.map(work, arguments))

    return run
