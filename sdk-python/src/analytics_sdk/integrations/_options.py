"""The options of the web integrations: what may be given, and what it has to be.

Hands requests to the hooks, and never looks into one.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias, TypedDict, get_args

from analytics_sdk.client import Client
from analytics_sdk.context import Identifier
from analytics_sdk.errors import ConfigError, call_user_code
from analytics_sdk.logs import QuietLogger, facts_of
from analytics_sdk.operation import Category

UserIdHook: TypeAlias = Callable[[Any], Identifier | None]
RouteHook: TypeAlias = Callable[[Any], str | None]
IgnoreHook: TypeAlias = Callable[[Any], object]


class GivenOptions(TypedDict, total=False):
    """
    The options of every web integration; each may be left out.

    What they call "request" is that of the framework: the environ of WSGI, the scope of ASGI.
    """

    client: Client | None
    """Where the events of requests go; the default client unless given."""
    operations: bool
    """Whether to track one event for each request (True)."""
    category: Category
    """Its category (USER_ACTION)."""
    user_id: UserIdHook | None
    """A function of the request, called when an event is tracked: the user's id, or None."""
    route: RouteHook | None
    """A function of the request, called when it ends: the template of its route, or None."""
    ignore: IgnoreHook | Collection[str]
    """What to leave alone: path prefixes such as "/health", or a function of the request."""
    failure_from_status: int
    """The lowest status code that counts as FAILURE (500)."""
    capture_ip: bool
    """Whether events say the client's address (True)."""
    capture_query: bool
    """Whether events say the queries of the URL and of the referrer (False)."""
    trust_forwarded: bool | int
    """How many proxies of yours write X-Forwarded-For, -Proto and -Host; True is one (False)."""


@dataclass(frozen=True, slots=True)
class Options:
    """The options of one integration, checked. Made by `checked_options()`."""

    client: Client | None = None
    operations: bool = True
    category: Category = "USER_ACTION"
    user_id: UserIdHook | None = None
    route: RouteHook | None = None
    ignore: IgnoreHook | tuple[str, ...] = ()
    failure_from_status: int = 500
    capture_ip: bool = True
    capture_query: bool = False
    trust_forwarded: int = 0
    _log: QuietLogger = field(
        default_factory=lambda: QuietLogger(__name__), init=False, repr=False, compare=False
    )

    def ignores(self, path: str, request: Any) -> bool:
        """Tell whether the request is to be left alone."""
        ignore = self.ignore
        if isinstance(ignore, tuple):
            # With a slash behind both, so that /health does not hold for /healthy.
            return bool(ignore) and f"{path}/".startswith(ignore)
        return bool(self._ask("ignore", lambda: bool(ignore(request))))

    def user_of(self, request: Any) -> Identifier | None:
        """Return what the hook says of the user."""
        return None if self.user_id is None else self._ask("user_id", self.user_id, request)

    def route_of(self, request: Any) -> str | None:
        """Return what the hook says of the route."""
        route = None if self.route is None else self._ask("route", self.route, request)
        return route if isinstance(route, str) else None

    def _ask(self, hook: str, function: Callable[..., Any], *args: Any) -> Any:
        """Return what a hook says; None if it fails, for then the request shall not."""
        answer, error = call_user_code(function, *args)
        if error is not None:
            self._log.warning(
                f"{hook}_failed", "A hook for requests failed", hook=hook, **facts_of(error)
            )
        return answer


def checked_options(given: Mapping[str, Any], route: RouteHook | None = None) -> Options:
    """
    Return the options, with *route* as the hook unless they have their own.

    Raises ConfigError, which names every mistake at once.
    """
    mistakes: list[str] = []
    values = dict(given)
    for name in given:
        if name not in GivenOptions.__annotations__:
            mistakes.append(f"{name} is no option of this integration.")
        elif advice := CHECKS[name](given[name]):
            mistakes.append(f"{name} must be {advice}.")
    if mistakes:
        raise ConfigError(mistakes)
    values["route"] = given.get("route") or route
    ignore = given.get("ignore", ())
    values["ignore"] = ignore if callable(ignore) else tuple(f"{p.rstrip('/')}/" for p in ignore)
    return Options(**values)


def _is_switch(value: Any) -> str | None:
    return None if isinstance(value, bool) else "True or False"


def _is_hook(value: Any) -> str | None:
    is_hook = value is None or (callable(value) and not inspect.iscoroutinefunction(value))
    return None if is_hook else "a plain function of the request"


def _is_client(value: Any) -> str | None:
    return None if value is None or callable(getattr(value, "track", None)) else "a Client"


def _is_category(value: Any) -> str | None:
    names = get_args(Category)
    return None if value in names else f"one of {', '.join(names)}"


def _is_ignore(value: Any) -> str | None:
    # A single string is a collection too, of characters.
    is_list = isinstance(value, Collection) and not isinstance(value, (str, bytes))
    is_right = (
        all(isinstance(prefix, str) and prefix.startswith("/") for prefix in value)
        if is_list
        else callable(value) and not inspect.iscoroutinefunction(value)
    )
    return None if is_right else 'a list of path prefixes such as "/health", or a plain function'


def _is_status(value: Any) -> str | None:
    is_status = isinstance(value, int) and 400 <= value <= 600
    return None if is_status else "a status code from 400 to 600"


def _is_proxy_count(value: Any) -> str | None:
    return None if isinstance(value, int) and value >= 0 else "True, False or a number of proxies"


CHECKS: Final[Mapping[str, Callable[[Any], str | None]]] = {
    "client": _is_client,
    "operations": _is_switch,
    "category": _is_category,
    "user_id": _is_hook,
    "route": _is_hook,
    "ignore": _is_ignore,
    "failure_from_status": _is_status,
    "capture_ip": _is_switch,
    "capture_query": _is_switch,
    "trust_forwarded": _is_proxy_count,
}


def split_settings(settings: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what of `ANALYTICS`, a framework's settings, is for `Client()`, and the options."""
    if not isinstance(settings, Mapping):
        raise ConfigError(["ANALYTICS must be a dict."])
    names = inspect.signature(Client).parameters
    for_client = {name: value for name, value in settings.items() if name in names}
    options = {name: value for name, value in settings.items() if name not in names}
    if for_client and options.get("client") is not None:
        raise ConfigError([f"client has settings of its own: leave out {', '.join(for_client)}."])
    return for_client, options
