"""What a request says of itself: headers, cookies, addresses, ids, as events have them.

Plain values in and out: knows no framework. What a stranger sends is cut short or left out, never
an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from ipaddress import ip_address
from os import urandom
from typing import Any, Final
from urllib.parse import quote, unquote

from analytics_sdk._limits import MAX_IDENTIFIER_CHARS
from analytics_sdk.context import Scope
from analytics_sdk.integrations._options import Options

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
