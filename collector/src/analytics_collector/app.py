"""The ASGI application: routes, and what happens to what they raise."""

from __future__ import annotations

import logging

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp

from analytics_collector.assemble import Services
from analytics_collector.errors import Refusal, StoreUnavailable
from analytics_collector.http.address_limit import AddressLimit
from analytics_collector.http.cors import Readable
from analytics_collector.http.middleware import AnswerHeaders
from analytics_collector.http.problems import on_refusal, on_store_unavailable, problem
from analytics_collector.http.routes import INGEST, routes

logger = logging.getLogger(__name__)

_TRACEPARENT_CHARS = 55
_CODE_OF_STATUS = {404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED"}


def create_app(services: Services) -> ASGIApp:
    """Return the application on *services*, which the caller starts and stops."""
    app = Starlette(
        routes=routes(),
        middleware=[
            Middleware(
                AddressLimit,
                limiter=services.limiter,
                trusted_proxies=services.trusted_proxies,
            ),
        ],
        exception_handlers={
            Refusal: on_refusal,
            StoreUnavailable: on_store_unavailable,
            HTTPException: _on_http_exception,
            ClientDisconnect: _on_disconnect,
            Exception: _on_fault,
        },
    )
    # A client that follows no redirect, as ours don't, must hear that the address is wrong.
    app.router.redirect_slashes = False
    app.state.services = services
    # Outside of everything, so that the answer to a fault of ours has its headers too.
    return AnswerHeaders(Readable(app, frozenset({INGEST})))


async def _on_http_exception(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    headers = dict(exc.headers or {})
    if exc.status_code == 405:
        headers["Allow"] = ", ".join(sorted(_methods_at(request)))
    refusal = Refusal(_CODE_OF_STATUS.get(exc.status_code, "INVALID_REQUEST"), headers=headers)
    return problem(refusal, request.scope["request_id"])


def _methods_at(request: Request) -> set[str]:
    """Return the methods of all routes of the address: the framework names those of the first."""
    return {
        method
        for route in request.app.routes
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE
        for method in route.methods or ()
        if method != "OPTIONS"  # what browsers ask; for others there is nothing in it
    }


async def _on_disconnect(request: Request, exc: Exception) -> Response:
    """Nobody is there to read an answer."""
    return Response(status_code=400)


async def _on_fault(request: Request, exc: Exception) -> Response:
    """Answer a fault of ours. It is logged by the server with its traceback."""
    request_id = request.scope.get("request_id", "")
    facts = {"request_id": request_id, "error": type(exc).__name__}
    if trace := request.headers.get("traceparent"):
        facts["trace"] = trace[:_TRACEPARENT_CHARS]
    logger.error("Request failed", extra=facts)
    return problem(Refusal("INTERNAL_ERROR", headers={"Retry-After": "1"}), request_id)
