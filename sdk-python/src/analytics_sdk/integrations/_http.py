"""What the web integrations share: read a request, carry its scope, tell how it ended.

Plain values in and out: knows no framework. What a stranger sends is cut short or left out, never
an error.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextvars import Token
from dataclasses import dataclass, field
from functools import lru_cache, partial
from ipaddress import ip_address
from os import urandom
from types import TracebackType
from typing import Any, Final, TypeAlias, TypedDict, get_args
from urllib.parse import quote, unquote

import analytics_sdk

# Now, for a server has the time when it starts, and before it forks; its first requests have not.
import analytics_sdk.delivery
import analytics_sdk.transport
from analytics_sdk._limits import MAX_IDENTIFIER_CHARS, MAX_NAME_CHARS
from analytics_sdk.client import Client
from analytics_sdk.context import Identifier, Scope, current
from analytics_sdk.errors import ConfigError, call_user_code
from analytics_sdk.logs import QuietLogger, facts_of
from analytics_sdk.operation import Category, Operation

UserIdHook: TypeAlias = Callable[[Any], Identifier | None]
RouteHook: TypeAlias = Callable[[Any], str | None]
IgnoreHook: TypeAlias = Callable[[Any], object]

# A stranger chooses how long a header is; an event has room for 100 KiB.
MAX_TEXT_CHARS: Final = 2048
# Others would let a stranger make names of events.
METHODS: Final = frozenset(
    ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY", "TRACE", "CONNECT")
)
# What may stand in a path as it is, as browsers have it.
UNQUOTED: Final = "/:@!$&'()*+,;=~"

HEADERS: Final = (
    "accept-language",
    "cookie",
    "host",
    "referer",
    "traceparent",
    "user-agent",
    "x-analytics-anonymous-id",
    "x-analytics-session-id",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-request-id",
)
ENVIRON_KEYS: Final = tuple((name, "HTTP_" + name.upper().replace("-", "_")) for name in HEADERS)

REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
TRACE_PARENT = re.compile(
    r"(?!ff)(?P<version>[0-9a-f]{2})-(?!0{32})(?P<trace>[0-9a-f]{32})-(?!0{16})[0-9a-f]{16}"
    r"-[0-9a-f]{2}(?P<more>-.*)?"
)
LANGUAGE = re.compile(r"[A-Za-z]{1,8}(-[A-Za-z0-9]{1,8}){0,4}")
BROWSER_COOKIE = re.compile(r"(?:^|;)\s*(analytics_(?:anonymous|session)_id)=([^;]*)")
PLACEHOLDER = re.compile(r"<(?:[^<>:]*:)?([^<>:]+)>")
NAMED_GROUP = re.compile(r"\(\?P<(\w+)>[^()]*\)")


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


# Options


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


# The request


def headers_of(environ: Mapping[str, Any]) -> dict[str, str]:
    """Return the headers that we read, from a WSGI environ (or Django's META)."""
    return {name: environ[key] for name, key in ENVIRON_KEYS if key in environ}


def scope_of(
    options: Options,
    headers: Mapping[str, str],
    *,
    scheme: str,
    path: str,
    query: str,
    ip: str | None,
) -> Scope:
    """Return what all events of a request share. *path* and *query* are percent-encoded."""
    cookie = headers.get("cookie", "")
    cookies = _browser_cookies(cookie) if "analytics_" in cookie else {}
    scope = Scope(None)
    scope.anonymous_id = _first_id(
        headers.get("x-analytics-anonymous-id"), cookies.get("analytics_anonymous_id")
    )
    scope.session_id = _first_id(
        headers.get("x-analytics-session-id"), cookies.get("analytics_session_id")
    )
    scope.context = _context_of(
        options, headers, scheme=scheme, path=path, query=query, ip=ip, host=headers.get("host")
    )
    return scope


def _browser_cookies(header: str) -> dict[str, str]:
    # The first of a name is that of the longest path, so it has to win.
    found = reversed(BROWSER_COOKIE.findall(header))
    return {name: unquote(text.strip(' "')) for name, text in found}


def _first_id(*texts: str | None) -> str | None:
    for text in texts:
        if text and len(text) <= MAX_IDENTIFIER_CHARS and text.isprintable():
            return text
    return None


def _context_of(
    options: Options,
    headers: Mapping[str, str],
    *,
    scheme: str,
    host: str | None,
    path: str,
    query: str,
    ip: str | None,
) -> dict[str, Any]:
    if proxies := options.trust_forwarded:
        ip = address_of(_forwarded(headers.get("x-forwarded-for"), proxies)) or ip
        host = _forwarded(headers.get("x-forwarded-host"), proxies) or host
        claimed = _forwarded(headers.get("x-forwarded-proto"), proxies).lower()
        scheme = claimed if claimed in ("http", "https") else scheme
    query = query if options.capture_query else ""
    page = {"path": path[:MAX_TEXT_CHARS]}
    if host:
        page["url"] = f"{scheme}://{host}{path}{query and '?'}{query}"[:MAX_TEXT_CHARS]
    if query:
        page["search"] = f"?{query}"[:MAX_TEXT_CHARS]
    if referrer := headers.get("referer"):
        if not options.capture_query:
            referrer = referrer.partition("?")[0].partition("#")[0]
        page["referrer"] = referrer[:MAX_TEXT_CHARS]
    context: dict[str, Any] = {"requestId": request_id_of(headers.get("x-request-id", ""))}
    if trace_id := trace_id_of(headers.get("traceparent", "")):
        context["traceId"] = trace_id
    if user_agent := headers.get("user-agent"):
        context["userAgent"] = user_agent[:MAX_TEXT_CHARS]
    if locale := locale_of(headers.get("accept-language", "")):
        context["locale"] = locale
    if ip and options.capture_ip:
        context["ip"] = ip
    context["page"] = page
    return context


def request_id_of(header: str) -> str:
    """Return the id that the request came with, or a new UUID."""
    if header and REQUEST_ID.fullmatch(header):
        return header
    # As uuid4() does it, but for half of the time.
    noise = urandom(16).hex()
    return f"{noise[:8]}-{noise[8:12]}-4{noise[13:16]}-a{noise[17:20]}-{noise[20:]}"


def trace_id_of(header: str) -> str | None:
    """Return the trace id of a W3C `traceparent`; None if that is not as the standard has it."""
    match = TRACE_PARENT.fullmatch(header.strip(" \t")) if header else None
    # Only later versions of the standard may have more behind.
    if match is None or (match["version"] == "00" and match["more"]):
        return None
    return match["trace"]


def locale_of(header: str) -> str | None:
    """Return the first language of an `Accept-Language`."""
    match = LANGUAGE.match(header.lstrip(" ")) if header else None
    return match[0] if match else None


def _forwarded(header: str | None, proxies: int) -> str:
    """Return what the outermost of *proxies* saw; anybody may have written what is before that."""
    entries = (header or "").split(",")
    return entries[-min(proxies, len(entries))].strip(' "')


def address_of(text: str) -> str | None:
    """Return the IP address in *text*, which some proxies write with a port behind."""
    host = text.rpartition(":")[0] if text.count(":") == 1 or "]:" in text else text
    try:
        # An address of IPv6 may have a zone of any length.
        return str(ip_address(host.strip("[]").partition("%")[0]))
    except ValueError:
        return None


def quoted(path: str | bytes) -> str:
    """Return *path* percent-encoded; what is no text is replaced."""
    raw = path.encode("utf-8", "replace") if isinstance(path, str) else path
    return quote(raw, safe=UNQUOTED)


@lru_cache(maxsize=4096)
def template_of(rule: str) -> str:
    """Return the rule of a route as we write it: `/orders/<int:id>` is `/orders/{id}`."""
    if "(?" in rule or rule.startswith("^"):
        # A regular expression of Django; what its groups may match is left out where that is plain.
        return NAMED_GROUP.sub(r"{\1}", rule).replace("^", "").removesuffix("$")
    return PLACEHOLDER.sub(r"{\1}", rule)


# From the request to the end of its answer


class Exchange:
    """
    One request and its answer: `with exchange:` the host's code runs in its scope.

    What that raises ends the exchange, and goes on to the host; else call `finish()`.
    """

    __slots__ = (
        "__weakref__",
        "_inside",
        "_method",
        "_operation",
        "_options",
        "_request",
        "_token",
        "error_type",
        "is_complete",
        "scope",
        "status_code",
    )

    def __init__(self, options: Options, request: Any, method: str, scope: Scope) -> None:
        self._options = options
        self._request = request
        self._method = method if method in METHODS else "OTHER"
        self.scope = scope
        if options.user_id is not None:
            scope.user_id = partial(options.user_of, request)
        self.status_code: int | None = None
        # Whether the host's code has done its part, though the server still has to send the answer.
        self.is_complete = False
        # Of an error that the framework turned into an answer.
        self.error_type: str | None = None
        # The block that the host's code was in when it was left, as a generator is between steps.
        self._inside: Scope | None = scope
        self._token: Token[Scope | None] | None = None
        self._operation: Operation | None = None
        if options.operations:
            tracker = analytics_sdk if options.client is None else options.client
            self._operation = Operation(tracker.track, "", options.category).__enter__()

    def __enter__(self) -> Exchange:
        self._token = current.set(self._inside)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._inside = current.get()
        if self._token is not None:
            current.reset(self._token)
            self._token = None
        if error is not None:
            self.finish(error)

    def finish(self, error: BaseException | None = None) -> None:
        """Track the event of the request, unless that is done or not wanted."""
        operation, self._operation = self._operation, None
        if operation is None:
            return
        status_code = self.status_code
        if status_code is None and isinstance(error, Exception):
            # Nobody sees it before the server answers it.
            status_code = 500
        if (
            error is not None
            or status_code is None
            or status_code >= self._options.failure_from_status
        ):
            operation.fail(self.error_type if error is None else type(error).__name__)
        route = self._options.route_of(self._request)
        facts = {"route": route, "method": self._method, "statusCode": status_code}
        operation.properties = {name: fact for name, fact in facts.items() if fact is not None}
        operation.name = name_of(self._method, route)
        token = current.set(self.scope)
        try:
            operation.__exit__(None, None, None)
        finally:
            current.reset(token)


@lru_cache(maxsize=4096)
def name_of(method: str, route: str | None) -> str:
    """Return the name of the event of a request: bounded, however many paths strangers try."""
    name = f"{method} {route or '(no route)'}"[:MAX_NAME_CHARS]
    return "".join(char if char.isprintable() else " " for char in name)


END: Final = object()


class Body:
    """The rest of an answer, passed on piece by piece: its end is the end of the exchange."""

    def __init__(self, exchange: Exchange, pieces: Iterable[Any]) -> None:
        self._exchange = exchange
        self._close = getattr(pieces, "close", None)
        with exchange:
            self._pieces = iter(pieces)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        with self._exchange:
            piece = next(self._pieces, END)
        if piece is END:
            self._exchange.finish()
            raise StopIteration
        return piece

    def close(self) -> None:
        """End the answer, complete or not: the server calls it, also when the client is gone."""
        with self._exchange:
            if self._close is not None:
                self._close()
        self._exchange.finish()
