"""Event schemas over HTTP: `admin` writes, `read` reads, each those of the key's own project."""

from __future__ import annotations

import re
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from analytics_collector.errors import InvalidQuery
from analytics_collector.http.auth import authorize
from analytics_collector.http.envelope import enveloped, read_document, success
from analytics_collector.schemas.document import read_event_name
from analytics_collector.wire import wire_row

# A schema may have 64 KiB; this is room for how it is written, and for what stands around it.
MAX_DOCUMENT_BYTES: Final = 256 * 1_024
MODES: Final = ("off", "warn", "reject")


async def list_schemas(request: Request) -> Response:
    """GET /api/v1/schemas: all of them, by name, with their versions."""
    key = await authorize(request, "read")
    async with _session(request) as registry:
        schemas = await registry.list_all(key.project_id)
    return success({"schemas": [wire_row(schema) for schema in schemas]})


async def report(request: Request) -> Response:
    """GET /api/v1/schemas-report: events that did not fit, and events that no schema is for."""
    key = await authorize(request, "read")
    async with _session(request) as registry:
        found = await registry.report(key.project_id)
    return success({part: [wire_row(row) for row in rows] for part, rows in found.items()})


async def get_schema(request: Request) -> Response:
    """GET /api/v1/schemas/{event_name}?version=: the one that holds, or a certain version."""
    key = await authorize(request, "read")
    name = _event_name(request)
    version = request.query_params.get("version")
    if version is not None and not re.fullmatch("[1-9][0-9]{0,8}", version):
        raise InvalidQuery("version", "must be a whole number from 1")
    async with _session(request) as registry:
        if version is None:
            return success(wire_row(await registry.find(key.project_id, name)))
        return success(wire_row(await registry.find_version(key.project_id, name, int(version))))


async def put_schema(request: Request) -> Response:
    """PUT /api/v1/schemas/{event_name}: register a schema; a new version if it is another."""
    key = await authorize(request, "admin")
    name = _event_name(request)
    document = await read_document(request, MAX_DOCUMENT_BYTES)
    for member in document.keys() - {"schema", "mode"}:
        raise InvalidQuery(member, "is not known here; known are schema, mode")
    if "schema" not in document:
        raise InvalidQuery("schema", "is missing")
    mode = document.get("mode")
    if mode is not None and mode not in MODES:
        raise InvalidQuery("mode", f"must be null or one of {', '.join(MODES)}")
    async with _session(request) as registry:
        put = await registry.put(
            key.project_id, name, document["schema"], mode, sets_mode="mode" in document
        )
    return success(wire_row(put), 201 if put["is_new"] else 200)


async def delete_schema(request: Request) -> Response:
    """DELETE /api/v1/schemas/{event_name}: let its events be unchecked; versions are kept."""
    key = await authorize(request, "admin")
    async with _session(request) as registry:
        return success(wire_row(await registry.remove(key.project_id, _event_name(request))))


_SCHEMAS: Final = "/api/v1/schemas"
# Not below the schemas: an event may have any name, also `report`.
_REPORT: Final = "/api/v1/schemas-report"

ROUTES: Final = [
    Route(path, enveloped(endpoint), methods=[method], name=endpoint.__name__)
    for method, path, endpoint in [
        ("GET", _SCHEMAS, list_schemas),
        ("GET", _REPORT, report),
        ("GET", _SCHEMAS + "/{event_name:path}", get_schema),
        ("PUT", _SCHEMAS + "/{event_name:path}", put_schema),
        ("DELETE", _SCHEMAS + "/{event_name:path}", delete_schema),
    ]
]


def _session(request: Request) -> Any:
    return request.app.state.services.schemas.session()


def _event_name(request: Request) -> str:
    return read_event_name(request.path_params["event_name"])
