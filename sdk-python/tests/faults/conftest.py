"""Surroundings that fail: servers that lie or say nothing, hosts that drop what comes."""

import contextlib
import itertools
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import textwrap
import threading
import time
import urllib.request

import pytest

API_KEY = "ak_live_test0SECRET"
# What is delivered at the end is not a matter of how busy the machine is.
PATIENT = {"ANALYTICS_SHUTDOWN_TIMEOUT_S": "20"}


@pytest.fixture
def run_script(collector, tmp_path):
    """Run a program from its first line on, which may not be an import of the SDK."""

    def run(source, *, command=(sys.executable, "-u"), timeout_s=60, **environment):
        script = tmp_path / "script.py"
        script.write_text(textwrap.dedent(source))
        settings = {"ANALYTICS_API_URL": collector.url, "ANALYTICS_API_KEY": API_KEY, **PATIENT}
        return subprocess.run(
            [*command, str(script)],
            env={**os.environ, **settings, **environment},
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    return run


class Server:
    """A web server with workers, as it is run in earnest: started, asked, stopped."""

    def __init__(self, command, folder, environment):
        self._log = folder / "server.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def log(self):
        return self._log.read_text(errors="replace")

    def url(self, eventually):
        found = eventually(lambda: re.search(r"127\.0\.0\.1:(\d+)", self.log), 30)
        return f"http://127.0.0.1:{found[1]}"

    def stop(self):
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(30)

    def end(self):
        """Leave no worker behind, whatever happened; the group is the server's own."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(30)


@pytest.fixture
def serve(collector, tmp_path):
    """Start a server on an application, the source of a module."""
    servers = []

    def start(*command, application, **environment):
        (tmp_path / "application.py").write_text(textwrap.dedent(application))
        settings = {"ANALYTICS_API_URL": collector.url, "ANALYTICS_API_KEY": API_KEY, **PATIENT}
        settings["PYTHONPATH"] = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
        server = Server(command, tmp_path, {**os.environ, **settings, **environment})
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.end()


@pytest.fixture
def patiently():
    """Settings under which the end of a program waits until all is delivered."""
    return PATIENT


@pytest.fixture
def fetch():
    """Ask a URL and return the answer's text."""

    def get(url):
        with urllib.request.urlopen(url, timeout=30) as answer:
            return answer.read().decode()

    return get


class RawServer:
    """Lets a test talk to each connection as it likes, and keeps what arrived."""

    def __init__(self, talk):
        self.received = []
        self.connections = 0
        self._talk = talk
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.released = threading.Event()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def read(self, connection):
        """Return what is there to read, and keep it."""
        data = connection.recv(65_536)
        self.received.append(data)
        return data

    def _accept(self):
        while not self.released.is_set():
            connection, _ = self._listener.accept()
            if self.released.is_set():
                connection.close()
                return
            self.connections += 1
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection):
        # A client that finds something wrong breaks off, in the middle of a handshake too.
        with connection, contextlib.suppress(OSError, ssl.SSLError):
            connection.settimeout(30)
            self._talk(self, connection)

    def stop(self):
        self.released.set()
        # Wakes the accept.
        socket.create_connection(("127.0.0.1", self.port)).close()
        for thread in self._threads:
            thread.join()
        self._listener.close()


@pytest.fixture
def raw_server():
    """Start servers that do as a function of server and connection says."""
    servers = []

    def start(talk):
        server = RawServer(talk)
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def make_black_hole():
    """Make addresses that answer nothing at all, not even to a connect; return the port.

    Its queue of connections is full and nobody takes one, so the kernel drops what comes.
    """
    if sys.platform != "linux":
        pytest.skip("needs a kernel that drops connections when the queue is full")
    with contextlib.ExitStack() as stack:

        def make(host="127.0.0.1", port=0):
            listener = stack.enter_context(socket.socket())
            listener.bind((host, port))
            listener.listen(0)
            for _ in range(4):
                client = stack.enter_context(socket.socket())
                client.setblocking(False)
                client.connect_ex(listener.getsockname())
            probe = stack.enter_context(socket.socket())
            probe.settimeout(0.2)
            with pytest.raises(TimeoutError):
                probe.connect(listener.getsockname())
            return listener.getsockname()[1]

        yield make


@pytest.fixture
def black_hole(make_black_hole):
    """The address of one."""
    return f"http://127.0.0.1:{make_black_hole()}"


@pytest.fixture
def measure_end(run_program, tmp_path):
    """Return how long a program takes to end after its last statement, in seconds."""
    spools = itertools.count()

    def measure(source, **settings):
        # What one program leaves on disk is none of the next one's work.
        settings["ANALYTICS_SPOOL_DIR"] = str(tmp_path / f"spool-{next(spools)}")
        program = run_program(source + "\nprint(time.monotonic())\n", **settings)
        ended_at = time.monotonic()
        assert program.returncode == 0, program.stderr
        assert "Traceback" not in program.stderr
        return ended_at - float(program.stdout.split()[-1])

    return measure
