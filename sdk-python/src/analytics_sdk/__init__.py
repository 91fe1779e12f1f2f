"""Product analytics for Python: track what happens, and go on at once.

    import analytics_sdk as analytics

    analytics.init("ak_live_...", "http://127.0.0.1:8000")
    analytics.track("checkout_completed", {"amount": 42}, user_id="u-1")

The functions use one default client; make a `Client` for another.

PYTEST_DONT_REWRITE: no assertion of ours is for pytest to explain.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, Concatenate, ParamSpec

from analytics_sdk.process import require_main_interpreter

# Before anything imports orjson.
require_main_interpreter()

from analytics_sdk.client import Client
from analytics_sdk.context import Scope, context, in_context
from analytics_sdk.default import DefaultClient
from analytics_sdk.errors import AnalyticsError, ConfigError, EventRejectedError, MisuseError
from analytics_sdk.operation import Category, Operation
from analytics_sdk.stats import Stats
from analytics_sdk.version import __version__

__all__ = [
    "AnalyticsError",
    "Client",
    "ConfigError",
    "EventRejectedError",
    "MisuseError",
    "Operation",
    "Scope",
    "Stats",
    "__version__",
    "alias",
    "context",
    "flush",
    "group",
    "identify",
    "in_context",
    "init",
    "operation",
    "opt_in",
    "opt_out",
    "page",
    "recover",
    "register",
    "reset",
    "screen",
    "shutdown",
    "stats",
    "track",
    "unregister",
]

_default = DefaultClient()
_P = ParamSpec("_P")


def _of_default_client(
    method: Callable[Concatenate[Client, _P], bool],
) -> Callable[_P, bool]:
    """Return *method* as a function of the default client."""

    @wraps(method)
    def function(*args: _P.args, **kwargs: _P.kwargs) -> bool:
        client = _default.get()
        return _default.refuse() if client is None else method(client, *args, **kwargs)

    signature = inspect.signature(method)
    function.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=list(signature.parameters.values())[1:]
    )
    # Else a tool that looks behind wrappers shows the method, with its `self`.
    del function.__wrapped__
    return function


def _as_default(make: Callable[_P, Client]) -> Callable[_P, Client]:
    """Return *make* as a function that also makes its client the default one."""

    def init(*args: _P.args, **kwargs: _P.kwargs) -> Client:
        """
        Make the client of the module-level functions, from the same arguments as `Client`.

        Returns it. One made before delivers what it has, for its `shutdown_timeout_s` at most, and
        ends. Raises ConfigError, which names every mistake at once.
        """
        client = make(*args, **kwargs)
        _default.put(client)
        return client

    # Where the names of the types are known, as of every function here.
    init.__module__, init.__qualname__ = make.__module__, init.__name__
    init.__signature__ = inspect.signature(make).replace(  # type: ignore[attr-defined]
        return_annotation="Client"
    )
    return init


# Typed by `Client` itself, so that the settings stand in one place.
init = _as_default(Client)
track = _of_default_client(Client.track)
identify = _of_default_client(Client.identify)
page = _of_default_client(Client.page)
screen = _of_default_client(Client.screen)
group = _of_default_client(Client.group)
alias = _of_default_client(Client.alias)


def operation(
    name: str,
    *,
    category: Category = "SYSTEM_EVENT",
    properties: Mapping[str, Any] | None = None,
) -> Operation:
    """Do `Client.operation()` with the default client of the moment when the block ends."""
    return Operation(track, name, category, properties)


def register(properties: Mapping[str, Any]) -> None:
    """Do `Client.register()` with the default client, if there is one."""
    if (client := _default.get()) is not None:
        client.register(properties)


def unregister(*names: str) -> None:
    """Do `Client.unregister()` with the default client, if there is one."""
    if (client := _default.get()) is not None:
        client.unregister(*names)


def reset() -> None:
    """Do `Client.reset()` with the default client, if there is one."""
    if (client := _default.get()) is not None:
        client.reset()


def opt_out() -> None:
    """Do `Client.opt_out()` with the default client, if there is one."""
    if (client := _default.get()) is not None:
        client.opt_out()


def opt_in() -> None:
    """Do `Client.opt_in()` with the default client, if there is one."""
    if (client := _default.get()) is not None:
        client.opt_in()


def flush(timeout_s: float | None = None) -> bool:
    """Do `Client.flush()` with the default client; True if there is none."""
    client = _default.get()
    return client is None or client.flush(timeout_s)


def shutdown(timeout_s: float | None = None) -> bool:
    """Do `Client.shutdown()` with the default client; True if there is none."""
    client = _default.get()
    return client is None or client.shutdown(timeout_s)


def recover(timeout_s: float | None = None) -> bool:
    """Do `Client.recover()` with the default client; True if there is none."""
    client = _default.get()
    return client is None or client.recover(timeout_s)


def stats() -> Stats:
    """Return what became of every event so far."""
    return _default.stats()
