"""Analytics for Django, under WSGI and ASGI.

    INSTALLED_APPS = ["analytics_sdk.integrations.django", ...]
    MIDDLEWARE = ["analytics_sdk.integrations.django.AnalyticsMiddleware", ...]
    ANALYTICS = {"api_key": "ak_live_...", "api_url": "http://127.0.0.1:8000"}

`ANALYTICS` takes the settings of `Client()` and the options that `GivenOptions` explains; hooks get
Django's request, and may be given by their dotted path. With settings for a client it makes the
default client, once a process, so that `analytics_sdk.track()` works in views, commands and tasks;
without, that is the program's own, or the environment's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final
from weakref import ref

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from django.core.exceptions import MiddlewareNotUsed
from django.core.signals import setting_changed
from django.utils.functional import LazyObject
from django.utils.module_loading import import_string

import analytics_sdk
from analytics_sdk.config import load
from analytics_sdk.context import Identifier
from analytics_sdk.errors import ConfigError
from analytics_sdk.integrations._exchange import END, Body, Exchange
from analytics_sdk.integrations._options import Options, checked_options, split_settings
from analytics_sdk.integrations._request import headers_of, quoted, scope_of, template_of

# Settings can't import the functions of the project, so these may be dotted paths.
IMPORTABLE: Final = ("client", "user_id", "route", "ignore", "before_send", "on_error")


class AnalyticsMiddleware:
    """
    Let the events of a request say who made it and where, and track one of its own.

    Belongs first in MIDDLEWARE: there it sees every answer, and has no part in any.

    The user is `request.user`, looked up when an event is tracked and not before; that reads the
    session, so that the answer of a view that tracks gets `Vary: Cookie`. Code that runs in the
    event loop can't look up: an event of an async view knows the user if the view awaited
    `request.auser()` before; the event of the request itself always does.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        self._options = configured()
        if not is_enabled():
            raise MiddlewareNotUsed("ANALYTICS is not enabled")
        self.get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: Any) -> Any:
        """Answer a request, as the rest of the project does."""
        if self._is_async:
            return self._answer(request)
        exchange = self._begin(request)
        if exchange is None:
            return self.get_response(request)
        with exchange:
            response = self.get_response(request)
        return _watched(exchange, response)

    async def _answer(self, request: Any) -> Any:
        exchange = self._begin(request)
        if exchange is None:
            return await self.get_response(request)
        with exchange:
            response = await self.get_response(request)
        user = exchange.scope.user_id
        if self._options.operations and isinstance(user, RequestUser):
            await user.look_up()
        return _watched(exchange, response)

    def process_exception(self, request: Any, exception: Exception) -> None:
        """Remember the error of a view, which Django turns into an answer."""
        reference = getattr(request, "_analytics_exchange", None)
        exchange = None if reference is None else reference()
        if exchange is not None:
            exchange.error_type = type(exception).__name__

    def _begin(self, request: Any) -> Exchange | None:
        path = quoted(request.path)
        if self._options.ignores(path, request):
            return None
        scope = scope_of(
            self._options,
            headers_of(request.META),
            scheme=request.scheme,
            path=path,
            query=request.META.get("QUERY_STRING", ""),
            ip=request.META.get("REMOTE_ADDR"),
        )
        scope.user_id = RequestUser(request)
        exchange = Exchange(self._options, request, request.method or "", scope)
        # Weak, for the exchange holds the request: a cycle would outlive it.
        request._analytics_exchange = ref(exchange)
        return exchange


def _watched(exchange: Exchange, response: Any) -> Any:
    """Return the response; the exchange ends with it, or with the stream that it still is."""
    exchange.status_code = response.status_code
    # Servers send the file of a FileResponse faster, if nothing is in between.
    if not response.streaming or getattr(response, "file_to_stream", None) is not None:
        exchange.finish()
    elif response.is_async:
        response.streaming_content = AsyncBody(exchange, response.streaming_content)
    else:
        response.streaming_content = Body(exchange, response.streaming_content)
    return response


class AsyncBody:
    """What `Body` is, for an answer that is streamed in the event loop."""

    def __init__(self, exchange: Exchange, pieces: Any) -> None:
        self._exchange = exchange
        self._pieces = aiter(pieces)

    def __aiter__(self) -> AsyncBody:
        return self

    async def __anext__(self) -> Any:
        with self._exchange:
            piece = await anext(self._pieces, END)
        if piece is END:
            self._exchange.finish()
            raise StopAsyncIteration
        return piece

    def close(self) -> None:
        """End the answer, complete or not: Django calls it, also when the client is gone."""
        self._exchange.finish()


class RequestUser:
    """The id of the user who makes a request, for whoever asks."""

    __slots__ = ("_request", "_user")

    def __init__(self, request: Any) -> None:
        self._request = request
        # Who was looked up here.
        self._user: Any = None

    def __call__(self) -> Identifier | None:
        """Return the id, or None if nobody is logged in; the database is asked if it has to be."""
        user = self._user
        if user is None:
            user = getattr(self._request, "user", None)
            if isinstance(user, LazyObject) and _is_in_event_loop():
                user = self._looked_up()
        if user is None or not user.is_authenticated:
            return None
        identifier: Identifier = user.pk
        return identifier

    async def look_up(self) -> None:
        """Look the user up in the event loop, if need be; what that raises counts as nobody."""
        is_lazy = isinstance(getattr(self._request, "user", None), LazyObject)
        if is_lazy and self._looked_up() is None and hasattr(self._request, "auser"):
            # As a task, which keeps what is raised to itself.
            answers = await asyncio.gather(self._request.auser(), return_exceptions=True)
            self._user = None if isinstance(answers[0], BaseException) else answers[0]

    def _looked_up(self) -> Any:
        """Return the user whom the project has looked up already."""
        user = getattr(self._request, "_acached_user", None)
        return getattr(self._request, "_cached_user", None) if user is None else user


def _is_in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def route_of(request: Any) -> str | None:
    """Return the template of the route that Django chose; None if none was."""
    match = request.resolver_match
    return None if match is None else f"/{template_of(match.route)}"


# Settings


def settings_given() -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what `ANALYTICS` says for the client, and the options; ConfigError if it can't be."""
    for_client, options = split_settings(getattr(settings, "ANALYTICS", {}))
    return _imported(for_client), _imported(options)


def _imported(given: Mapping[str, Any]) -> dict[str, Any]:
    values = dict(given)
    for name in IMPORTABLE:
        path = values.get(name)
        # A path with slashes, for `ignore`, is another mistake.
        if isinstance(path, str) and "/" not in path:
            try:
                values[name] = import_string(path)
            except ImportError as error:
                raise ConfigError([f"{name} can't be imported: {error}."]) from error
    return values


@cache
def configured() -> Options:
    """Return the options, once the default client is made; ConfigError if `ANALYTICS` is wrong."""
    for_client, given = settings_given()
    options = checked_options(given, route_of)
    if for_client:
        analytics_sdk.init(**for_client)
    return options


def is_enabled() -> bool:
    """Tell whether requests are worth the trouble."""
    for_client, _ = settings_given()
    return not for_client or load(for_client).enabled


def _forget(*, setting: str, **_: Any) -> None:
    """Read the settings again, for a test has changed them."""
    if setting == "ANALYTICS":
        configured.cache_clear()


setting_changed.connect(_forget)
