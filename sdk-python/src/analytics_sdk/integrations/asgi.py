"""Analytics for any ASGI application: Starlette, FastAPI, others.

    app.add_middleware(AnalyticsMiddleware)      # or: app = AnalyticsMiddleware(app)

Events that a request tracks say who made it and where; in views that run in threads, streamed
answers and background tasks too. Its own event is tracked when the last byte of the answer was
handed to the server, before background tasks. A request that is cancelled, as some servers do when
the client is gone, counts as FAILURE (CancelledError).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import analytics_sdk
from analytics_sdk.integrations._exchange import Exchange
from analytics_sdk.integrations._options import GivenOptions, checked_options
from analytics_sdk.integrations._request import HEADERS, quoted, scope_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

# What is called a scope here is that of ASGI.
Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Application: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

WANTED: Final = {name.encode(): name for name in HEADERS}
ENDS: Final = ("lifespan.shutdown.complete", "lifespan.shutdown.failed")
# For how long the end of the application waits for delivery; what is left then stays on disk.
END_TIMEOUT_S: Final = 2.0
BODIES: Final = ("http.response.body", "http.response.pathsend", "http.response.zerocopysend")


class AnalyticsMiddleware:
    """
    An ASGI application round another; takes the options that `GivenOptions` explains.

    Knows the routes of Starlette and FastAPI; for another framework say with `route=` how to find
    the template in the scope. Raises ConfigError, which names every mistake at once.
    """

    def __init__(self, app: Application, **options: Unpack[GivenOptions]) -> None:
        self.app = app
        self._options = checked_options(options, route_of)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, as the application does."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, self._delivering(send))
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = path_of(scope)
        if self._options.ignores(path, scope):
            await self.app(scope, receive, send)
            return
        if not isinstance(scope["headers"], list):
            # They may be an iterator, and the application wants them too.
            scope["headers"] = list(scope["headers"])
        client = scope.get("client")
        exchange = Exchange(
            self._options,
            scope,
            scope["method"],
            scope_of(
                self._options,
                headers_of(scope["headers"]),
                scheme=scope.get("scheme", "http"),
                path=path,
                query=scope.get("query_string", b"").decode("latin-1"),
                ip=client[0] if client else None,
            ),
        )

        async def send_and_watch(message: Message) -> None:
            kind = message["type"]
            if kind == "http.response.start":
                exchange.status_code = message["status"]
            await send(message)
            if kind in BODIES and not message.get("more_body"):
                exchange.finish()

        with exchange:
            await self.app(scope, receive, send_and_watch)
        exchange.finish()

    def _delivering(self, send: Send) -> Send:
        """
        Return *send*, which delivers what waits before it says that the application has ended.

        After that uvicorn lets SIGTERM end the process, and nothing that is registered for its
        exit is called.
        """

        async def deliver_and_send(message: Message) -> None:
            if message["type"] in ENDS:
                client = self._options.client
                tracker = analytics_sdk if client is None else client
                await asyncio.to_thread(tracker.flush, END_TIMEOUT_S)
            await send(message)

        return deliver_and_send


def path_of(scope: Scope) -> str:
    """Return the path, percent-encoded."""
    if raw := scope.get("raw_path"):
        # Some servers leave the query on.
        return str(raw.decode("ascii", "replace")).partition("?")[0]
    return quoted(scope["path"])


def headers_of(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return the headers that we read."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in raw:
        if name := WANTED.get(raw_name):
            value = raw_value.decode("latin-1")
            # HTTP/2 may send a cookie a header; of others a second one is not to be trusted.
            before = headers.get(name)
            headers[name] = value if before is None else f"{before}; {value}"
    return headers


def route_of(scope: Scope) -> str | None:
    """
    Return the template of the route that Starlette or FastAPI chose; None if none was.

    With the prefixes of mounts, and those of FastAPI's `include_router`.
    """
    if "endpoint" not in scope:
        return None
    route = scope.get("route")
    included = scope.get("fastapi", {}).get("effective_route_context")
    if route is not None and getattr(included, "original_route", None) is route:
        route = included
    if not hasattr(route, "endpoint"):
        # Starlette before 1.7 doesn't say its routes, FastAPI only those of its own kind.
        route = _find(getattr(scope.get("router"), "routes", ()), scope["endpoint"])
    if route is not None:
        return f"{_mounted_at(scope, route)}{route.path_format}"
    return f"{_mounted_at(scope, None)}/{{path}}" if "app_root_path" in scope else None


def _mounted_at(scope: Scope, route: Any) -> str:
    """Return the template of the mounts round *route*: the part of the path that they took."""
    if "app_root_path" not in scope:
        return ""
    taken: str = scope["root_path"][len(scope["app_root_path"]) :]
    own = getattr(route, "param_convertors", {})
    for name, value in scope.get("path_params", {}).items():
        if name not in own:
            taken = f"{taken}/".replace(f"/{value}/", f"/{{{name}}}/", 1).removesuffix("/")
    return taken


def _find(routes: Iterable[Any], endpoint: Any) -> Any:
    for route in routes:
        if getattr(route, "endpoint", None) is endpoint:
            return route
        if (found := _find(getattr(route, "routes", None) or (), endpoint)) is not None:
            return found
    return None
