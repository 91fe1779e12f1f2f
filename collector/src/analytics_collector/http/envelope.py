"""The form of every answer of the administration: `{"success", "data", "error"}`.

Ingest and questions have forms of their own; see `problems` for theirs.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response

from analytics_collector.errors import InvalidQuery, Refusal, StoreUnavailable
from analytics_collector.http.problems import REQUEST_ERRORS, json_response, store_unavailable

MAX_DOCUMENT_BYTES: Final = 64 * 1_024
# What an administrator sees, a new key above all, is for no cache on the way.
_HEADERS: Final = {"Cache-Control": "no-store"}

Endpoint = Callable[[Request], Awaitable[Response]]


def success(data: Any, status: int = 200) -> Response:
    """Return *data* as the answer to a request that was carried out.

    Its names are as on the wire (camelCase); dates must have been written out (`wire_time`).
    """
    content = {"success": True, "data": data, "error": None}
    return json_response(content, status, _HEADERS)


def refused(refusal: Refusal, request_id: str) -> Response:
    """Return the answer for *refusal*: status and sentence are those of its code."""
    known = REQUEST_ERRORS[refusal.code]
    error = {
        "code": refusal.code,
        "message": refusal.message or known["message"],
        "requestId": request_id,
        **refusal.details,
    }
    if "Retry-After" in refusal.headers:
        error["retryAfter"] = int(refusal.headers["Retry-After"])
    content = {"success": False, "data": None, "error": error}
    return json_response(content, known["status"], {**_HEADERS, **refusal.headers})


def enveloped(endpoint: Endpoint) -> Endpoint:
    """Let what *endpoint* raises be answered in the envelope, too."""

    @functools.wraps(endpoint)
    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except Refusal as exc:
            return refused(exc, request.scope["request_id"])
        except StoreUnavailable as exc:
            return refused(store_unavailable(exc), request.scope["request_id"])

    return answer


def whole(value: Any) -> Any:
    """Return *value*, decoded JSON, as an int if it is one to JSON Schema: 60.0 is 60."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


async def read_body(request: Request, max_bytes: int) -> bytes:
    """Return the body of at most *max_bytes*. Raises `Refusal` (BODY_TOO_LARGE)."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise Refusal("BODY_TOO_LARGE", f"This body may have at most {max_bytes} bytes.")
    return bytes(body)


async def read_document(request: Request, max_bytes: int = MAX_DOCUMENT_BYTES) -> dict[str, Any]:
    """Return the body, which must be a JSON object of at most *max_bytes*; an empty one is `{}`.

    Raises `Refusal` (BODY_TOO_LARGE) or `InvalidQuery`.
    """
    body = await read_body(request, max_bytes)
    try:
        document = orjson.loads(body or b"{}")
    except orjson.JSONDecodeError as exc:
        raise InvalidQuery("body", f"is not JSON: {exc}") from exc
    if not isinstance(document, dict):
        raise InvalidQuery("body", "must be a JSON object")
    return document
