"""AWS Lambda: one event for each invocation, and all events sent before it ends.

    analytics.init("ak_live_...", "https://analytics.example.com")

    @analytics_handler
    def handler(event, context):
        analytics.track("receipt_printed")
        return {"statusCode": 204}

Lambda freezes the process as soon as the handler has returned, its threads included, and may never
thaw it. So the handler waits until the events are delivered: for `flush_timeout_s` at most, and
never into the last `margin_s` before the function's time is out, not even if the collector hangs.
What is not delivered by then waits in the process, and goes out with its next invocation. It is
lost with the process, unless it is on disk: functions may write below `/tmp` only, so set
`spool_dir="/tmp/analytics"`, and with `durable=True` not even a function that is killed for being
out of time loses an event. The directory lives as long as the sandbox does.

The event of an invocation is called as the function is. It has `functionName`, `functionVersion`,
`memoryLimitMb`, `remainingTimeMs` (when the handler was done), `coldStart` (the first invocation of
its process), `status`, `durationMs` and `errorType`. A request that came through API Gateway, a
function URL or a load balancer is called by method and route, `GET /orders/{id}`, has `method`,
`route` and `statusCode` as well, and is a FAILURE from status 500 on. All events of an invocation
have Lambda's request id and the id of the trace, and for a request the ids of the browser.

Put it outermost, so that it sees the event as Lambda sends it, and what other decorators raise.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, TypeVar, overload
from urllib.parse import quote, urlencode

import analytics_sdk
from analytics_sdk.config import xray_trace_header
from analytics_sdk.context import Scope, current
from analytics_sdk.errors import ConfigError
from analytics_sdk.integrations._exchange import name_of
from analytics_sdk.integrations._options import Options, UserIdHook, checked_options
from analytics_sdk.integrations._request import METHODS, UNQUOTED, address_of, scope_of, trace_id_of
from analytics_sdk.operation import Category, Operation

if TYPE_CHECKING:
    from analytics_sdk.client import Client

T = TypeVar("T")

# The id of X-Ray is that of W3C with two dashes and a version more.
XRAY_ROOT = re.compile(r"(?:^|;)\s*Root=1-([0-9a-f]{8})-([0-9a-f]{24})(?:;|$)", re.IGNORECASE)

_invocations = itertools.count()


@overload
def analytics_handler(function: Callable[[Any, Any], T], /) -> Callable[[Any, Any], T]: ...


@overload
def analytics_handler(
    *,
    client: Client | None = None,
    operations: bool = True,
    category: Category | None = None,
    user_id: UserIdHook | None = None,
    failure_from_status: int = 500,
    capture_ip: bool = True,
    capture_query: bool = False,
    flush_timeout_s: float = 2.0,
    margin_s: float = 0.25,
) -> Callable[[Callable[[Any, Any], T]], Callable[[Any, Any], T]]: ...


def analytics_handler(
    function: Callable[[Any, Any], T] | None = None,
    /,
    *,
    client: Client | None = None,
    operations: bool = True,
    category: Category | None = None,
    user_id: UserIdHook | None = None,
    failure_from_status: int = 500,
    capture_ip: bool = True,
    capture_query: bool = False,
    flush_timeout_s: float = 2.0,
    margin_s: float = 0.25,
) -> Any:
    """
    Decorate the handler of a Lambda function, with or without options.

    *client* is the default client of the moment unless given. *operations* says whether there are
    events of invocations; their *category* is USER_ACTION for a request and SYSTEM_EVENT for
    anything else, unless given. *user_id* is a function of Lambda's event, called when an event is
    tracked. *failure_from_status*, *capture_ip* and *capture_query* are as in the web integrations.

    Raises ConfigError, which names every mistake in the options.
    """
    given: dict[str, Any] = {"client": client, "operations": operations, "user_id": user_id}
    given |= {"failure_from_status": failure_from_status}
    given |= {"capture_ip": capture_ip, "capture_query": capture_query}
    if category is not None:
        given["category"] = category
    mistakes = [
        f"{name} must be a number of seconds."
        for name, value in (("flush_timeout_s", flush_timeout_s), ("margin_s", margin_s))
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0
    ]
    if mistakes:
        raise ConfigError(mistakes)
    decorate = _Decorator(checked_options(given), category, flush_timeout_s, margin_s)
    return decorate if function is None else decorate(function)


@dataclass(frozen=True)
class _Decorator:
    """What `analytics_handler()` was told. *runtime* is what Lambda calls the context."""

    options: Options
    category: Category | None
    flush_timeout_s: float
    margin_s: float

    def __call__(self, function: Callable[[Any, Any], T]) -> Callable[[Any, Any], T]:
        """Return the handler that Lambda calls."""

        @wraps(function)
        def handler(event: Any, context: Any) -> T:
            is_first = next(_invocations) == 0
            request = _request_of(event)
            token = current.set(self._scope_of(event, request, context))
            try:
                if not self.options.operations:
                    return function(event, context)
                facts = {**_facts_of(context), "coldStart": is_first}
                with self._operation_of(function, request, context, facts) as operation:
                    try:
                        answer = function(event, context)
                    finally:
                        if (left_ms := _left_ms(context)) is not None:
                            operation.properties["remainingTimeMs"] = left_ms
                    if request is not None:
                        self._judge(operation, answer)
                    return answer
            finally:
                current.reset(token)
                self._tracker.flush(self._patience_s(context))

        return handler

    @property
    def _tracker(self) -> Any:
        return analytics_sdk if self.options.client is None else self.options.client

    def _scope_of(self, event: Any, request: _Request | None, runtime: Any) -> Scope:
        """Return what all events of an invocation share."""
        scope = Scope(None)
        headers: Mapping[str, str] = {}
        if request is not None:
            headers = request.headers
            scope = scope_of(
                self.options,
                headers,
                scheme=request.scheme,
                path=request.path,
                query=request.query,
                ip=request.ip,
            )
        if self.options.user_id is not None:
            scope.user_id = partial(self.options.user_of, event)
        ids = {
            "requestId": _text(getattr(runtime, "aws_request_id", None)),
            "traceId": _trace_id_of(headers, runtime),
        }
        known = {name: value for name, value in ids.items() if value is not None}
        scope.context = {**scope.context, **known}
        return scope

    def _operation_of(
        self, function: Any, request: _Request | None, runtime: Any, facts: dict[str, Any]
    ) -> Operation:
        if request is None:
            own_name = str(getattr(function, "__name__", type(function).__name__))
            name = _text(getattr(runtime, "function_name", None)) or own_name
            category: Category = "SYSTEM_EVENT"
        else:
            name = name_of(request.method, request.route)
            category = "USER_ACTION"
            facts = {**facts, "method": request.method}
            if request.route is not None:
                facts["route"] = request.route
        return Operation(self._tracker.track, name, self.category or category, facts)

    def _judge(self, operation: Operation, answer: Any) -> None:
        status_code = _mapping(answer).get("statusCode")
        if isinstance(status_code, int):
            operation.properties["statusCode"] = status_code
            if status_code >= self.options.failure_from_status:
                operation.fail()

    def _patience_s(self, runtime: Any) -> float:
        """Return for how long the delivery of events may keep the answer."""
        left_ms = _left_ms(runtime)
        if left_ms is None:
            return self.flush_timeout_s
        return max(min(self.flush_timeout_s, left_ms / 1000 - self.margin_s), 0)


# The runtime. In tests of users it may be anything, a mock or None.


def _facts_of(runtime: Any) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "functionName": _text(getattr(runtime, "function_name", None)),
        "functionVersion": _text(getattr(runtime, "function_version", None)),
    }
    # A string, although it is a number.
    memory_mb = str(getattr(runtime, "memory_limit_in_mb", None))
    if memory_mb.isdecimal():
        facts["memoryLimitMb"] = int(memory_mb)
    return {name: fact for name, fact in facts.items() if fact is not None}


def _left_ms(runtime: Any) -> int | None:
    """Return how long the function may still run."""
    ask = getattr(runtime, "get_remaining_time_in_millis", None)
    left_ms = ask() if callable(ask) else None
    return int(left_ms) if isinstance(left_ms, (int, float)) else None


def _trace_id_of(headers: Mapping[str, str], runtime: Any) -> str | None:
    """Return the id of the trace in the form that W3C has for it."""
    ask = getattr(runtime, "w3c", None)
    w3c = _mapping(ask() if callable(ask) else None)
    for traceparent in (headers.get("traceparent"), w3c.get("traceparent")):
        if trace_id := trace_id_of(_text(traceparent) or ""):
            return trace_id
    for header in (headers.get("x-amzn-trace-id", ""), xray_trace_header()):
        if match := XRAY_ROOT.search(header):
            return "".join(match.groups()).lower()
    return None


# The event. Anybody who may invoke the function chooses what it is.


@dataclass(frozen=True, slots=True)
class _Request:
    """An HTTP request."""

    method: str
    route: str | None
    scheme: str
    path: str
    query: str
    ip: str | None
    headers: dict[str, str]


def _request_of(event: Any) -> _Request | None:
    """Return the request that *event* is, if it is one.

    API Gateway has two forms of them, function URLs use its second one, and load balancers
    something like its first.
    """
    event = _mapping(event)
    about = _mapping(event.get("requestContext"))
    http = _mapping(about.get("http"))
    method = _text(http.get("method") if http else event.get("httpMethod"))
    if method is None:
        return None
    headers = _headers_of(event)
    scheme = headers.get("x-forwarded-proto")
    if http:
        # `GET /orders/{id}`, or `$default` for all that has no route.
        route = (_text(event.get("routeKey")) or "").partition(" ")[2]
        path = _text(event.get("rawPath"))
        query = _text(event.get("rawQueryString")) or ""
        ip = _text(http.get("sourceIp"))
    else:
        route = _text(event.get("resource")) or ""
        path = _text(event.get("path"))
        query = _query_of(event, is_encoded="elb" in about)
        ip = _text(_mapping(about.get("identity")).get("sourceIp"))
    # A load balancer adds whom it saw to what anybody may have written.
    seen = ip or headers.get("x-forwarded-for", "").rpartition(",")[2].strip()
    return _Request(
        method=method if method in METHODS else "OTHER",
        route=route or None,
        scheme=scheme if scheme in ("http", "https") else "https",
        path=quote(path or "/", safe=f"{UNQUOTED}%", errors="replace"),
        query=query,
        ip=address_of(seen),
        headers=headers,
    )


def _headers_of(event: Mapping[str, Any]) -> dict[str, str]:
    """Return the headers by their names in small letters."""
    headers: dict[str, str] = {}
    for name, values in _mapping(event.get("multiValueHeaders")).items():
        name = str(name).lower()
        headers[name] = ("; " if name == "cookie" else ", ").join(_texts(values))
    for name, value in _mapping(event.get("headers")).items():
        if isinstance(value, str):
            headers.setdefault(str(name).lower(), value)
    if cookies := _texts(event.get("cookies")):
        headers["cookie"] = "; ".join(cookies)
    return headers


def _query_of(event: Mapping[str, Any], *, is_encoded: bool) -> str:
    parameters = _mapping(event.get("multiValueQueryStringParameters"))
    parameters = parameters or _mapping(event.get("queryStringParameters"))
    safe = "%+" if is_encoded else ""
    return urlencode(parameters, doseq=True, safe=safe, errors="replace")


def _mapping(value: Any) -> dict[str, Any]:
    """Return *value* if it is an object of JSON."""
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _texts(values: Any) -> list[str]:
    values = values if isinstance(values, list) else []
    return [value for value in values if isinstance(value, str)]
