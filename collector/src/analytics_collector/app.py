"""The ASGI application: routes, and what happens to what they raise."""

from __future__ import annotations

import logging

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from analytics_collector.assemble import Services
from analytics_collector.errors import Refusal, StoreUnavailable
from analytics_collector.http.middleware import RequestIdMiddleware
from analytics_collector.http.problems import on_refusal, on_store_unavailable, problem
from analytics_collector.http.routes import routes

logger = logging.getLogger(__name__)

_CODE_OF_STATUS = {404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED"}


def create_app(services: Services) -> Starlette:
    """Return the application on *services*, which the caller starts and stops."""
    app = Starlette(
        routes=routes(),
        middleware=[Middleware(RequestIdMiddleware)],
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
    return app


async def _on_http_exception(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    refusal = Refusal(
        _CODE_OF_STATUS.get(exc.status_code, "INVALID_REQUEST"),
        headers=dict(exc.headers or {}),
    )
    return problem(refusal, request.scope["request_id"])


async def _on_disconnect(request: Request, exc: Exception) -> Response:
    """Nobody is there to read an answer."""
    return Response(status_code=400)


async def _on_fault(request: Request, exc: Exception) -> Response:
    """Answer a fault of ours. It is logged by the server with its traceback."""
    request_id = request.scope.get("request_id", "")
    logger.error("Request failed", extra={"request_id": request_id, "error": type(exc).__name__})
    # This answer is made outside of the middleware that adds the id to all others.
    headers = {"Retry-After": "1", "x-request-id": request_id}
    return problem(Refusal("INTERNAL_ERROR", headers=headers), request_id)
