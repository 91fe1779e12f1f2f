"""What every answer has: the id of its request, and what keeps a browser careful."""

from __future__ import annotations

import os
import re
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SAFE_ID: Final = re.compile(rb"[A-Za-z0-9._:-]{1,128}")

# Nothing that we answer is a page to be framed, sniffed or kept, unless it says so itself.
_CAREFUL: Final = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
]
_POLICY: Final = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
_NOT_KEPT: Final = (b"cache-control", b"no-store")
_SECURE_ONLY: Final = (b"strict-transport-security", b"max-age=31536000")
_AS_USUAL: Final = [*_CAREFUL, _POLICY, _NOT_KEPT]


class AnswerHeaders:
    """Add what all answers have; the id is the sender's if that is harmless, else a new one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with `request_id` in its scope."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope["headers"])
        scope["request_id"] = request_id.decode()
        more = [(b"x-request-id", request_id)]
        if scope["scheme"] == "https":
            more.append(_SECURE_ONLY)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message["headers"]
                message["headers"] = [*headers, *more, *_for(headers)]
            await send(message)

        await self._app(scope, receive, send_with_headers)


def _for(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return what is to be added to *headers*, which may have a policy of their own."""
    names = {name for name, _ in headers}
    if b"content-security-policy" not in names and b"cache-control" not in names:
        return _AS_USUAL
    return [*_CAREFUL, *(header for header in (_POLICY, _NOT_KEPT) if header[0] not in names)]


def _request_id(headers: list[tuple[bytes, bytes]]) -> bytes:
    for name, value in headers:
        if name == b"x-request-id" and _SAFE_ID.fullmatch(value):
            return value
    return os.urandom(16).hex().encode()
