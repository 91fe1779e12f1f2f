"""Make one POST and bring back the answer, or the fact that there was none.

Knows HTTP, not events. Imported by the worker thread on first use, as it imports httpx: importing
that takes longer than a small program runs.
"""

from __future__ import annotations

# Else the first look-up of a host imports it, at a moment when a fork could cut that in two.
import encodings.idna  # noqa: F401
import time
from collections.abc import Iterable
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
        """Send *body* and return the answer, within *timeout_s* from connecting to the last byte.

        Only looking up the host's name can take longer: no system call for it knows a time limit.
        """
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
    """Make every read and write of *client*'s own connections end by *deadline*.

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

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        stream = self._backend.connect_tcp(
            host, port, self._deadline.shorten(timeout), local_address, socket_options
        )
        return _BoundedStream(stream, self._deadline)


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
