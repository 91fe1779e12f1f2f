"""Turn refusals into answers: the only place where a code becomes a status and a body."""

from __future__ import annotations

import logging
from importlib.resources import files
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from analytics_collector.errors import Refusal, StoreUnavailable
from analytics_collector.model import Rejection, Violation

logger = logging.getLogger(__name__)

_ERRORS = orjson.loads(files("analytics_collector").joinpath("_spec/errors.json").read_bytes())
REQUEST_ERRORS: dict[str, dict[str, Any]] = _ERRORS["request"]
EVENT_ERRORS: dict[str, dict[str, Any]] = _ERRORS["event"]


def json_response(
    content: object, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """Return *content* as a JSON answer."""
    return Response(
        orjson.dumps(content), status_code=status, headers=headers, media_type="application/json"
    )


def problem(refusal: Refusal, request_id: str) -> Response:
    """Return the answer for *refusal*: `{"error", "code", "requestId", ...}`."""
    known = REQUEST_ERRORS[refusal.code]
    body = {
        "error": refusal.message or known["message"],
        "code": refusal.code,
        "requestId": request_id,
        **refusal.details,
    }
    headers = dict(refusal.headers)
    if "Retry-After" in headers:
        body["retryAfter"] = int(headers["Retry-After"])
    return json_response(body, known["status"], headers)


def verdict(rejection: Rejection) -> dict[str, object]:
    """Return what an answer says of one event that was refused."""
    told: dict[str, object] = {
        "index": rejection.index,
        "messageId": rejection.message_id,
        "code": rejection.code,
        "message": EVENT_ERRORS[rejection.code]["message"],
    }
    if rejection.field is not None:
        told["field"] = rejection.field
    if rejection.violations:
        told["violations"] = [violation(each) for each in rejection.violations]
    return told


def violation(found: Violation) -> dict[str, str]:
    """Return what an answer says of one thing that an event schema has against an event."""
    return {"path": found.path, "message": found.message}


async def on_refusal(request: Request, exc: Exception) -> Response:
    """Answer a `Refusal` that an endpoint raised."""
    assert isinstance(exc, Refusal)
    return problem(exc, request.scope["request_id"])


def store_unavailable(exc: StoreUnavailable) -> Refusal:
    """Return the refusal that tells a client to send the same again later."""
    headers = {"Retry-After": str(exc.retry_after_s)}
    return Refusal("STORE_UNAVAILABLE", exc.advice, headers=headers)


async def on_store_unavailable(request: Request, exc: Exception) -> Response:
    """Answer 503 when Postgres did not."""
    assert isinstance(exc, StoreUnavailable)
    return problem(store_unavailable(exc), request.scope["request_id"])
