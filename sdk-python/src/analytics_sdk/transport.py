"""Make one POST and bring back the answer, or the fact that there was none.

Knows HTTP, not events. Imported by the worker thread on first use, as it imports httpx: importing
that takes longer than a small program runs.
"""

from __future__ import annotations

# Else the first look-up of a host imports it, at a moment when a fork could cut that in two.
import encodings.idna  # noqa: F401
import socket
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import httpcore
import httpx

from analytics_sdk._limits import MAX_RESPONSE_BYTES
from analytics_sdk.batch import Body
from analytics_sdk.retry import Answer
from analytics_sdk.version import __version__

PATH = "/api/v1/events"
# The time limits of httpx hold for one read or write; this is the shortest that is left of ours.
SHORTEST_WAIT_S = 0.001
PIECE_BYTES = 16_384


class Transport:
    """One connection to the collector, kept alive between requests. For one thread."""

    def __init__(
        self,
        *,
        api_key: str,
        api_url: str,
        http_transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._deadline = _Deadline()
        self._url = api_url + PATH
        self._client = httpx.Client(
            transport=http_transport,
            # A redirect would take the key and the events to where it points.
            follow_redirects=False,
            headers={
                "x-api-key": api_key,
                "User-Agent": f"analytics-sdk-python/{__version__}",
                "Content-Type": "application/json",
                "Accept": "application/json",
                # Nothing to inflate: 200 KB of gzip can be 200 MB of answer.
                "Accept-Encoding": "identity",
            },
        )
        if http_transport is None:
            _bound_by(self._deadline, self._client)

    def post(self, body: Body, timeout_s: float) -> Answer:
        """Send *body* and return the answer, within *timeout_s* from the name to the last byte."""
        self._deadline.at = time.monotonic() + timeout_s
        encoding = {"Content-Encoding": "gzip"} if body.is_gzip else {}
        try:
            with self._client.stream(
                "POST", self._url, content=body.content, headers=encoding, timeout=timeout_s
            ) as response:
                content = self._read(response)
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            return Answer(failure=type(error).__name__)
        if content is None:
            return Answer(failure="AnswerTooLarge")
        return Answer(response.status_code, content, response.headers.get("Retry-After"))

    def __enter__(self) -> Transport:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def _read(self, response: httpx.Response) -> bytes | None:
        """Return the raw body, or None if it is longer than any answer of a collector."""
        content = bytearray()
        # Transports for tests hand out answers that are read already.
        if response.is_stream_consumed:
            return response.content if len(response.content) <= MAX_RESPONSE_BYTES else None
        # Raw, so that no Content-Encoding is undone.
        for chunk in response.iter_raw():
            content += chunk
            if len(content) > MAX_RESPONSE_BYTES:
                return None
            # Where the user brought the transport, this is all that bounds the whole.
            if time.monotonic() > self._deadline.at:
                raise httpx.ReadTimeout("The answer took too long.")
        return bytes(content)


class _Deadline:
    """When (monotonic) the request in hand must be over."""

    at = 0.0

    def shorten(self, timeout_s: float | None) -> float:
        left_s = max(self.at - time.monotonic(), SHORTEST_WAIT_S)
        return left_s if timeout_s is None else min(timeout_s, left_s)


def _bound_by(deadline: _Deadline, client: httpx.Client) -> None:
    """Make every look-up, connect, read and write of *client*'s own pools end by *deadline*.

    httpx has no time limit for a request as a whole, so a server that sends a byte of its header
    every nine seconds would hold us for days. httpcore has a public seam for it, `network_backend`,
    but httpx does not pass it on; hence the private names. `test_transport.py` tells if they move.
    """
    # The proxies that the environment names have their own.
    for transport in (client._transport, *client._mounts.values()):
        pool = getattr(transport, "_pool", None)
        if isinstance(pool, httpcore.ConnectionPool):
            pool._network_backend = _BoundedBackend(pool._network_backend, deadline)


class _BoundedBackend(httpcore.NetworkBackend):
    def __init__(self, backend: httpcore.NetworkBackend, deadline: _Deadline) -> None:
        self._backend = backend
        self._deadline = deadline
        self._lookup: _Lookup | None = None

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        addresses = [host] if _is_address(host) else self._look_up(host, port, timeout)
        error: Exception = httpcore.ConnectError(f"{host} has no address")
        for others in reversed(range(len(addresses))):
            # A share of the time for each, lest one that says nothing hides one that works.
            share_s = self._deadline.shorten(timeout) / (others + 1)
            try:
                stream = self._backend.connect_tcp(
                    addresses[-1 - others], port, share_s, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as failure:
                error = failure
            else:
                return _BoundedStream(stream, self._deadline)
        raise error

    def _look_up(self, host: str, port: int, timeout: float | None) -> list[str]:
        lookup = self._lookup
        # One that is late is waited for again: a second would only be as late. A fork loses it.
        if lookup is None or lookup.name_and_port != (host, port) or lookup.is_lost:
            lookup = self._lookup = _Lookup(host, port)
            lookup.begin()
        lookup.wait(self._deadline.shorten(timeout))
        if not lookup.is_over:
            raise httpcore.ConnectTimeout(f"The look-up of {host} took too long.")
        self._lookup = None
        if lookup.error is not None:
            raise httpcore.ConnectError(lookup.error) from lookup.error
        return lookup.addresses


class _Lookup:
    """Looks up the addresses of a host in a thread, for no system call for it knows a time limit.

    Only that, for a socket that gevent made belongs to the thread that made it.
    """

    def __init__(self, host: str, port: int) -> None:
        self.name_and_port = host, port
        self.addresses: list[str] = []
        self.error: Exception | None = None
        self.is_over = False
        self._thread = threading.Thread(target=self._run, name="analytics-sdk-lookup", daemon=True)

    @property
    def is_lost(self) -> bool:
        """Whether its thread ended, in a fork, before it had an answer."""
        return not (self._thread.is_alive() or self.is_over)

    def begin(self) -> None:
        try:
            self._thread.start()
        except RuntimeError:
            # The interpreter is at its end, or the process is out of threads.
            self._run()

    def wait(self, timeout_s: float) -> None:
        if not self.is_over:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            found = socket.getaddrinfo(*self.name_and_port, type=socket.SOCK_STREAM)
            self.addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        except (OSError, ValueError) as error:  # UnicodeError, of a name that is none, above all
            self.error = error
        finally:
            self.is_over = True


def _is_address(host: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        with suppress(OSError):
            socket.inet_pton(family, host)
            return True
    return False


class _BoundedStream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream, deadline: _Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._deadline.shorten(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        # In parts, for the time limit of a write starts anew with every piece that goes out.
        for start in range(0, len(buffer), PIECE_BYTES):
            self._stream.write(buffer[start : start + PIECE_BYTES], self._deadline.shorten(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: Any,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        stream = self._stream.start_tls(
            ssl_context, server_hostname, self._deadline.shorten(timeout)
        )
        return _BoundedStream(stream, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
