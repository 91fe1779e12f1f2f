"""Touch the way to the collector step by step: name, port, TLS, one request.

Tells what it met and judges nothing; `doctor` does. Every step ends in its time, also where a
system call knows none.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Final, ParamSpec, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx
import orjson

from analytics_sdk._limits import MAX_RESPONSE_BYTES
from analytics_sdk.version import __version__

P = ParamSpec("P")
T = TypeVar("T")

# ImportError: a SOCKS proxy wants a package. ValueError: a name that DNS can't have, or a proxy
# with a scheme that nobody knows.
ERRORS: Final = (OSError, httpx.HTTPError, httpx.InvalidURL, ImportError, ValueError)
PORTS: Final = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}


@dataclass(frozen=True, slots=True)
class Hop:
    """Where the first connection goes: to the collector itself or to the proxy in between."""

    host: str
    port: int
    is_proxy: bool

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Handshake:
    """What a server showed when it was asked for TLS."""

    version: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back for a request."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    asked_at: datetime
    """By our clock, half way between the question and the answer."""

    @property
    def document(self) -> dict[str, Any]:
        """The JSON object in the body; empty if there is none."""
        try:
            document = orjson.loads(self.body)
        except orjson.JSONDecodeError:
            return {}
        return document if isinstance(document, dict) else {}


def first_hop(api_url: str) -> Hop:
    """Return where a request for *api_url* goes first, by the proxies of the environment."""
    url = urlsplit(api_url)
    host = url.hostname or ""
    proxies = getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if proxy is None or proxy_bypass(host):
        return Hop(host, url.port or PORTS[url.scheme], is_proxy=False)
    via = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    return Hop(via.hostname or "", via.port or PORTS.get(via.scheme, 80), is_proxy=True)


def look_up(host: str, timeout_s: float) -> list[str]:
    """Return the addresses of *host*. Raises one of `ERRORS`."""
    found = within(timeout_s, socket.getaddrinfo, host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def connect(hop: Hop, timeout_s: float) -> None:
    """Open a connection and close it. Raises one of `ERRORS`."""
    within(timeout_s, socket.create_connection, (hop.host, hop.port), timeout_s).close()


def shake_hands(hop: Hop, timeout_s: float) -> Handshake:
    """Agree on TLS, by the certificates that deliveries trust too. Raises one of `ERRORS`."""
    return within(timeout_s, _shake_hands, hop, timeout_s)


def ask(
    method: str, url: str, timeout_s: float, headers: Mapping[str, str], content: bytes = b""
) -> Reply:
    """Make one request the way deliveries are made. Raises one of `ERRORS`."""
    return within(timeout_s, _ask, method, url, timeout_s, headers, content)


def within(timeout_s: float, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """
    Return what *function* does, or TimeoutError.

    A resolver that blocks, or a server that sends a byte now and then, keeps a thread but not us.
    """
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(function(*args, **kwargs))
        except ERRORS as error:
            outcome.set_exception(error)

    threading.Thread(target=run, name="analytics-sdk-probe", daemon=True).start()
    try:
        return outcome.result(timeout_s)
    except FutureTimeoutError:  # another class than TimeoutError before Python 3.11
        raise TimeoutError(f"no answer within {timeout_s:g} s") from None


def _shake_hands(hop: Hop, timeout_s: float) -> Handshake:
    context = httpx.create_ssl_context()
    with (
        socket.create_connection((hop.host, hop.port), timeout_s) as plain,
        context.wrap_socket(plain, server_hostname=hop.host) as connection,
    ):
        certificate = connection.getpeercert() or {}
        seconds = ssl.cert_time_to_seconds(str(certificate["notAfter"]))
        expires_at = datetime.fromtimestamp(seconds, timezone.utc)
        return Handshake(connection.version() or "", expires_at)


def _ask(
    method: str, url: str, timeout_s: float, headers: Mapping[str, str], content: bytes
) -> Reply:
    # As in `transport`: no redirect, which would take the key along, and nothing to inflate.
    usual = {
        "User-Agent": f"analytics-sdk-python/{__version__}",
        "Accept": "application/json",
        "Accept-Encoding": "identity",
    }
    before = datetime.now(timezone.utc)
    with (
        httpx.Client(follow_redirects=False, timeout=timeout_s, headers=usual) as client,
        client.stream(method, url, headers=headers, content=content) as response,
    ):
        after = datetime.now(timezone.utc)
        body = bytearray()
        for chunk in response.iter_raw():
            body += chunk
            if len(body) > MAX_RESPONSE_BYTES:
                break
    asked_at = before + (after - before) / 2
    return Reply(response.status_code, response.headers, bytes(body), asked_at)
