"""Projects and API keys over HTTP. All need the scope `admin`, and answer in the envelope.

A key looks after its own project. One of the project `default`, the installation's own, looks
after all of them. What a key may not look after is to it as if it were not there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from analytics_collector.errors import InvalidQuery, Refusal
from analytics_collector.http.auth import authorize, project_asked, within
from analytics_collector.http.envelope import enveloped, read_document, success, whole
from analytics_collector.keys import DEFAULT_OVERLAP_S, MAX_OVERLAP_S
from analytics_collector.model import DEFAULT_PROJECT, SCOPES
from analytics_collector.origins import read_origins
from analytics_collector.wire import wire_row

MAX_NAME_CHARS: Final = 255
DEFAULT_DAYS, MAX_DAYS = 30, 400


async def list_projects(request: Request) -> Response:
    """GET /api/v1/admin/projects: those that the key looks after."""
    key = await authorize(request, "admin")
    async with _session(request) as admin:
        projects = await admin.list_projects(within(key))
    return success({"projects": [wire_row(project) for project in projects]})


async def create_project(request: Request) -> Response:
    """POST /api/v1/admin/projects: make one; for the installation's own keys."""
    key = await authorize(request, "admin")
    if not key.of_installation:
        raise Refusal(
            "INSUFFICIENT_SCOPE",
            f"This needs an admin key of the project `{DEFAULT_PROJECT}`.",
        )
    document = await _read(request, "name", "settings")
    name = _read_name(document.get("name"), least=1)
    async with _session(request) as admin:
        project = await admin.create_project(name, _read_settings(document))
    return success(wire_row(project), 201)


async def get_project(request: Request) -> Response:
    """GET /api/v1/admin/projects/{project_id}: its name and settings."""
    key = await authorize(request, "admin")
    project_id = project_asked(request.path_params["project_id"], key)
    async with _session(request) as admin:
        return success(wire_row(await admin.find_project(project_id)))


async def change_project(request: Request) -> Response:
    """PATCH /api/v1/admin/projects/{project_id}: rename it, merge something into its settings."""
    key = await authorize(request, "admin")
    project_id = project_asked(request.path_params["project_id"], key)
    document = await _read(request, "name", "settings")
    name = _read_name(document["name"], least=1) if "name" in document else None
    async with _session(request) as admin:
        project = await admin.change_project(project_id, name, _read_settings(document))
    return success(wire_row(project))


async def list_keys(request: Request) -> Response:
    """GET /api/v1/admin/keys?projectId=: the keys of a project, one's own if none is named."""
    key = await authorize(request, "admin")
    project_id = project_asked(request.query_params.get("projectId", key.project_id), key)
    async with _session(request) as admin:
        await admin.find_project(project_id)
        keys = await admin.list_keys(within=project_id)
    return success({"keys": [wire_row(entry) for entry in keys]})


async def create_key(request: Request) -> Response:
    """POST /api/v1/admin/keys: make one; it is shown in this answer and never again."""
    key = await authorize(request, "admin")
    document = await _read(request, "projectId", "name", "scopes", "expiresAt", "allowedOrigins")
    project_id = project_asked(whole(document.get("projectId", key.project_id)), key)
    async with _session(request) as admin:
        made = await admin.create_key(
            project_id,
            _read_scopes(document.get("scopes")),
            _read_name(document.get("name", ""), least=0),
            _read_time(document.get("expiresAt")),
            read_origins(document.get("allowedOrigins")),
        )
    return success(wire_row(made), 201)


async def get_key(request: Request) -> Response:
    """GET /api/v1/admin/keys/{key_id}: what may be shown of it."""
    key = await authorize(request, "admin")
    async with _session(request) as admin:
        return success(wire_row(await admin.find_key(_key_id(request), within(key))))


async def change_key(request: Request) -> Response:
    """PATCH /api/v1/admin/keys/{key_id}: its name, its end, the origins that may use it."""
    key = await authorize(request, "admin")
    document = await _read(request, "name", "expiresAt", "allowedOrigins")
    changes: dict[str, Any] = {}
    if "name" in document:
        changes["name"] = _read_name(document["name"], least=0)
    if "expiresAt" in document:
        changes["expires_at"] = _read_time(document["expiresAt"])
    if "allowedOrigins" in document:
        changes["allowed_origins"] = read_origins(document["allowedOrigins"])
    async with _session(request) as admin:
        return success(wire_row(await admin.change_key(_key_id(request), changes, within(key))))


async def rotate_key(request: Request) -> Response:
    """POST /api/v1/admin/keys/{key_id}/rotate: make its successor; both are valid for a while."""
    key = await authorize(request, "admin")
    document = await _read(request, "overlapSeconds")
    overlap_s = whole(document.get("overlapSeconds", DEFAULT_OVERLAP_S))
    if type(overlap_s) is not int or not 0 <= overlap_s <= MAX_OVERLAP_S:
        raise InvalidQuery("overlapSeconds", f"must be a whole number from 0 to {MAX_OVERLAP_S}")
    async with _session(request) as admin:
        made = await admin.rotate_key(_key_id(request), overlap_s, within(key))
    return success(wire_row(made), 201)


async def revoke_key(request: Request) -> Response:
    """DELETE /api/v1/admin/keys/{key_id}: end it, everywhere within 5 seconds."""
    key = await authorize(request, "admin")
    async with _session(request) as admin:
        return success(wire_row(await admin.revoke_key(_key_id(request), within(key))))


async def key_usage(request: Request) -> Response:
    """GET /api/v1/admin/keys/{key_id}/usage?days=30: how much it was used on each day."""
    key = await authorize(request, "admin")
    text = request.query_params.get("days", str(DEFAULT_DAYS))
    if not re.fullmatch("[0-9]{1,3}", text) or not 1 <= int(text) <= MAX_DAYS:
        raise InvalidQuery("days", f"must be a whole number from 1 to {MAX_DAYS}")
    async with _session(request) as admin:
        usage = await admin.key_usage(_key_id(request), int(text), within(key))
    return success(wire_row(usage))


_PROJECTS, _KEYS = "/api/v1/admin/projects", "/api/v1/admin/keys"

ROUTES: Final = [
    Route(path, enveloped(endpoint), methods=[method], name=endpoint.__name__)
    for method, path, endpoint in [
        ("GET", _PROJECTS, list_projects),
        ("POST", _PROJECTS, create_project),
        ("GET", _PROJECTS + "/{project_id}", get_project),
        ("PATCH", _PROJECTS + "/{project_id}", change_project),
        ("GET", _KEYS, list_keys),
        ("POST", _KEYS, create_key),
        ("GET", _KEYS + "/{key_id}", get_key),
        ("PATCH", _KEYS + "/{key_id}", change_key),
        ("DELETE", _KEYS + "/{key_id}", revoke_key),
        ("POST", _KEYS + "/{key_id}/rotate", rotate_key),
        ("GET", _KEYS + "/{key_id}/usage", key_usage),
    ]
]


def _session(request: Request) -> Any:
    return request.app.state.services.administration.session()


def _key_id(request: Request) -> int:
    text = request.path_params["key_id"]
    if not re.fullmatch("[0-9]{1,18}", text):
        raise Refusal("NOT_FOUND", "There is no key of that id.")
    return int(text)


async def _read(request: Request, *members: str) -> dict[str, Any]:
    document = await read_document(request)
    for member in document.keys() - set(members):
        raise InvalidQuery(member, f"is not known here; known are {', '.join(members)}")
    return document


def _read_name(value: Any, least: int) -> str:
    if (
        not isinstance(value, str)
        or not least <= len(value.strip())
        or len(value) > MAX_NAME_CHARS
        or not value.isprintable()
    ):
        raise InvalidQuery("name", f"must be a text of {least} to {MAX_NAME_CHARS} characters")
    return value


def _read_settings(document: Mapping[str, Any]) -> dict[str, Any]:
    settings = document.get("settings", {})
    if not isinstance(settings, dict):
        raise InvalidQuery("settings", "must be a JSON object")
    return settings


def _read_scopes(value: Any) -> list[str]:
    if not isinstance(value, list) or not value or any(scope not in SCOPES for scope in value):
        raise InvalidQuery("scopes", f"must be a list of one or more of {', '.join(SCOPES)}")
    return value


def _read_time(value: Any) -> datetime | None:
    if value is None:
        return None
    try:
        time = datetime.fromisoformat(value)
        if time.tzinfo is not None:
            return time.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        pass  # told below, as that the offset is missing
    raise InvalidQuery("expiresAt", "must be null or a time with its offset: 2027-01-31T12:00:00Z")
