"""Bytes over a socket, and whatever comes back: for requests that no HTTP library would send."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

# After a whole answer we listen on for a moment: a smuggled request would get a second one.
_LINGER_S = 0.2


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """Everything that came back on one connection."""

    received: bytes
    seconds: float

    @property
    def status(self) -> int | None:
        """The status of the first answer; None if there was none."""
        words = self.received.split(b" ", 2)
        if words[0] not in (b"HTTP/1.1", b"HTTP/1.0"):
            return None
        return int(words[1])

    @property
    def body(self) -> dict[str, Any]:
        """The JSON object in the first answer; empty if there was none."""
        try:
            content = json.loads(self.received.partition(b"\r\n\r\n")[2])
        except ValueError:
            return {}
        return content if isinstance(content, dict) else {}

    @property
    def count(self) -> int:
        """How many answers came; `100 Continue` is none."""
        return self.received.count(b"HTTP/1.1 ") - self.received.count(b"HTTP/1.1 100")


def connect(url: str, timeout_s: float = 20.0) -> socket.socket:
    """Return a connection to the server at *url*."""
    address = urlsplit(url)
    return socket.create_connection((address.hostname, address.port), timeout_s)


def talk(url: str, request: bytes, timeout_s: float = 10.0) -> RawAnswer:
    """Send *request* on a connection of its own and return all that comes back.

    The time is until the first answer was whole, or the connection was closed or left silent.
    """
    received = b""
    started = time.monotonic()
    answered_at = None
    with connect(url, timeout_s) as connection:
        # It may be refused before all is sent; the answer is there all the same.
        with contextlib.suppress(OSError):
            connection.sendall(request)
        while True:
            try:
                chunk = connection.recv(65_536)
            except OSError:
                break
            if not chunk:
                break
            received += chunk
            if answered_at is None and _is_whole(received):
                answered_at = time.monotonic()
                connection.settimeout(_LINGER_S)
    return RawAnswer(received, (answered_at or time.monotonic()) - started)


def _is_whole(received: bytes) -> bool:
    head, separator, body = received.partition(b"\r\n\r\n")
    if not separator:
        return False
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return len(body) >= int(line.split(b":")[1])
    return False
