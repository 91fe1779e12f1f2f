"""The script for web pages at /js/sdk.js, from the same server that takes their events.

`npm run copy` in sdk-js-shim/ writes it beside this module.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

PATH: Final = "/js/sdk.js"

_HEADERS: Final = {
    # Its address has no version, so a new one must reach the pages by itself: a day later, without
    # any of them ever waiting for it.
    "Cache-Control": "public, max-age=86400, stale-while-revalidate=604800",
    "Vary": "Accept-Encoding",
    # There is no secret in it, and pages of all origins load it; those with `integrity` ask for
    # the first, those that are isolated for the second.
    "Access-Control-Allow-Origin": "*",
    "Cross-Origin-Resource-Policy": "cross-origin",
}


@dataclass(frozen=True, slots=True)
class _Form:
    """The script in one encoding: caches must not take it for the other."""

    body: bytes
    tag: str
    headers: dict[str, str]


async def script(request: Request) -> Response:
    """GET /js/sdk.js: the SDK, for a `<script>` of any page."""
    form = _forms()[_takes_gzip(request.headers.get("accept-encoding", ""))]
    if _knows(form.tag, request.headers.get("if-none-match", "")):
        return Response(status_code=304, headers=form.headers)
    return Response(form.body, media_type="text/javascript", headers=form.headers)


def _takes_gzip(accepted: str) -> bool:
    for coding in accepted.lower().split(","):
        name, _, weight = coding.partition(";")
        if name.strip() == "gzip":
            return not re.fullmatch(r"\s*q=0(\.0*)?\s*", weight)
    return False


def _knows(tag: str, known: str) -> bool:
    """Tell whether *known*, an If-None-Match, has *tag*: weak too, as proxies make them."""
    return known.strip() == "*" or tag in re.findall(r'"[^"]*"', known)


@cache
def _forms() -> tuple[_Form, _Form]:
    """Return the script as it is, and compressed."""
    code = files("analytics_collector.http").joinpath("sdk.js").read_bytes()
    version = hashlib.sha256(code).hexdigest()[:32]
    plain, packed = f'"{version}"', f'"{version}-gzip"'
    return (
        _Form(code, plain, {**_HEADERS, "ETag": plain}),
        _Form(
            gzip.compress(code, 9, mtime=0),
            packed,
            {**_HEADERS, "ETag": packed, "Content-Encoding": "gzip"},
        ),
    )
