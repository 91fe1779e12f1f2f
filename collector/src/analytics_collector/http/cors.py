"""Let web pages send events: what a browser asks before, and may read after.

Only the addresses that take events have this; all others answer pages of foreign
origins as if there were no CORS. A preflight carries no key, so it is answered for any origin;
whether the origin may use the key is decided when the request comes (see `auth`).

A page may send its cookies along. What it is then told of its events it can read only where the
key names its origin; refusals, which depend on no cookie, it can read anyway: a page that sees
nothing of them would send again and again.
"""

from __future__ import annotations

from typing import Final

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_Headers = list[tuple[bytes, bytes]]

METHODS: Final = ["POST", "OPTIONS"]
# Where the scope of a request says whether its key names the page's origin exactly.
IS_NAMED_PAGE: Final = "analytics_is_named_page"
_CREDENTIALS: Final = (b"access-control-allow-credentials", b"true")
_PREFLIGHT: Final[_Headers] = [
    (b"access-control-allow-methods", b"POST"),
    (
        b"access-control-allow-headers",
        b"content-type, content-encoding, x-api-key, x-request-id, traceparent, tracestate",
    ),
    # The longest time for which a browser believes it.
    (b"access-control-max-age", b"7200"),
    _CREDENTIALS,
    (b"vary", b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers"),
]
_ANSWER: Final[_Headers] = [
    (
        b"access-control-expose-headers",
        b"retry-after, x-ratelimit-limit, x-ratelimit-remaining, x-ratelimit-reset, x-request-id",
    ),
    (b"vary", b"Origin"),
]


class Preflights:
    """Wraps an endpoint that takes events with POST; its route has the methods `METHODS`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a preflight, or pass the request on."""
        if scope["method"] != "OPTIONS":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        origin: bytes | None = headers.get(b"origin")
        if origin is None or b"access-control-request-method" not in headers:
            raise HTTPException(405, headers={"Allow": "POST"})
        await _send_preflight(send, origin)


class Readable:
    """Wraps the application, so that pages read whatever an address that takes events answers.

    Also what is answered outside of its endpoint: a fault of ours, or the limit of an address.
    """

    def __init__(self, app: ASGIApp, paths: frozenset[str]) -> None:
        self._app = app
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and let the page read the answer, a refusal above all."""
        origin = _origin(scope) if scope.get("path") in self._paths else None
        if origin is None:
            await self._app(scope, receive, send)
            return
        allow = (b"access-control-allow-origin", origin)

        async def send_readable(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [*message["headers"], allow, *_ANSWER]
                if message["status"] != 202 or scope.get(IS_NAMED_PAGE):
                    headers.append(_CREDENTIALS)
                message["headers"] = headers
            await send(message)

        await self._app(scope, receive, send_readable)


def _origin(scope: Scope) -> bytes | None:
    if scope["method"] == "OPTIONS":  # see `Preflights`
        return None
    origin: bytes | None = dict(scope["headers"]).get(b"origin")
    return origin


async def _send_preflight(send: Send, origin: bytes) -> None:
    headers = [(b"access-control-allow-origin", origin), *_PREFLIGHT]
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
