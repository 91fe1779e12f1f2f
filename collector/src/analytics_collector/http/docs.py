"""The interface for machines and for people: /openapi.json, and Swagger UI on it at /api-docs.

Its files come from an installed package: a page of ours never asks another server for anything.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from analytics_collector.errors import Refusal

# Everything is ours; styles in the markup are Swagger UI's way, scripts in it are not.
_PAGE_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Analytics collector</title>
<link rel="stylesheet" href="/api-docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="/api-docs/swagger-ui-bundle.js"></script>
<script src="/api-docs/start.js"></script>
</body>
</html>
"""
_START: Final = """SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  // What asks a server of Swagger's to judge the document.
  validatorUrl: null,
});
"""
_TYPES: Final = {"swagger-ui.css": "text/css", "swagger-ui-bundle.js": "text/javascript"}
_CACHED: Final = {"Cache-Control": "public, max-age=86400"}


async def openapi(request: Request) -> Response:
    """GET /openapi.json: the interface, as OpenAPI 3.1 has it."""
    return Response(_interface(), media_type="application/json")


async def page(request: Request) -> Response:
    """GET /api-docs: the interface, to read and to try out."""
    return Response(
        _PAGE, media_type="text/html", headers={"Content-Security-Policy": _PAGE_POLICY}
    )


async def asset(request: Request) -> Response:
    """GET /api-docs/{name}: what the page consists of."""
    name = request.path_params["name"]
    if name == "start.js":
        return Response(_START, media_type="text/javascript", headers=_CACHED)
    if name not in _TYPES:
        raise Refusal("NOT_FOUND")
    return Response(_swagger_ui(name), media_type=_TYPES[name], headers=_CACHED)


@cache
def _interface() -> bytes:
    return files("analytics_collector").joinpath("_spec/openapi.json").read_bytes()


@cache
def _swagger_ui(name: str) -> bytes:
    # Without importing the package: we want its files, not the frameworks that it serves.
    package = find_spec("swagger_ui")
    assert package is not None and package.submodule_search_locations is not None
    return Path(package.submodule_search_locations[0], "static", name).read_bytes()
