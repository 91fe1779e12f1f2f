"""Questions about stored events: funnels, workflows, what a user did. All need the scope `read`."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from analytics_collector.analytics import funnel as funnels
from analytics_collector.analytics.params import (
    Workflow,
    read_funnel,
    read_workflow,
)
from analytics_collector.errors import InvalidQuery, Refusal
from analytics_collector.http.auth import authorize
from analytics_collector.http.problems import json_response
from analytics_collector.wire import wire_time

MAX_QUERY_BYTES = 64 * 1_024
DEFAULT_EVENTS, MAX_EVENTS = 100, 1_000


async def user_events(request: Request) -> Response:
    """GET /api/v1/users/{user_id}/events?limit=100: what a user did, newest first."""
    key = await authorize(request, "read")
    user_id = request.path_params["user_id"]
    if not user_id or "\x00" in user_id:
        raise InvalidQuery("userId", "must not be empty or contain NUL")
    limit = _read_limit(request.query_params.get("limit"))
    reader = request.app.state.services.reader
    events, is_truncated = await reader.user_events(key.project_id, user_id, limit)
    return json_response(
        {"userId": user_id, "count": len(events), "truncated": is_truncated, "events": events}
    )


async def funnel(request: Request) -> Response:
    """POST /api/v1/analytics/funnel: evaluate a workflow, or steps sent along."""
    key = await authorize(request, "read")
    reader = request.app.state.services.reader
    asked = read_funnel(await _read_json(request), datetime.now(UTC))
    workflow = None
    if asked.workflow_id is not None:
        workflow = await _find_workflow(request, key.project_id, asked.workflow_id)
    return json_response(await funnels.evaluate(reader, key.project_id, asked, workflow))


async def create_workflow(request: Request) -> Response:
    """POST /api/v1/workflows: save a funnel definition under a name."""
    key = await authorize(request, "read")
    draft = read_workflow(await _read_json(request))
    reader = request.app.state.services.reader
    workflow = await reader.create_workflow(key.project_id, draft)
    return json_response(_described(workflow), 201)


async def list_workflows(request: Request) -> Response:
    """GET /api/v1/workflows: the saved definitions, oldest first."""
    key = await authorize(request, "read")
    workflows = await request.app.state.services.reader.list_workflows(key.project_id)
    return json_response({"workflows": [_described(workflow) for workflow in workflows]})


async def get_workflow(request: Request) -> Response:
    """GET /api/v1/workflows/{workflow_id}: one saved definition."""
    key = await authorize(request, "read")
    workflow_id = request.path_params["workflow_id"]
    return json_response(_described(await _find_workflow(request, key.project_id, workflow_id)))


async def delete_workflow(request: Request) -> Response:
    """DELETE /api/v1/workflows/{workflow_id}: forget a definition; 204."""
    key = await authorize(request, "read")
    workflow_id = request.path_params["workflow_id"]
    reader = request.app.state.services.reader
    if "\x00" in workflow_id or not await reader.delete_workflow(key.project_id, workflow_id):
        raise _no_workflow()
    return Response(status_code=204)


async def _find_workflow(request: Request, project_id: int, workflow_id: str) -> Workflow:
    if "\x00" in workflow_id:  # Postgres can't even look for it
        raise _no_workflow()
    reader = request.app.state.services.reader
    workflow: Workflow | None = await reader.find_workflow(project_id, workflow_id)
    if workflow is None:
        raise _no_workflow()
    return workflow


def _no_workflow() -> Refusal:
    return Refusal("NOT_FOUND", "This project has no workflow of that id.")


def _described(workflow: Workflow) -> dict[str, Any]:
    return {
        "workflowId": workflow.workflow_id,
        "name": workflow.name,
        "steps": workflow.steps,
        "windowSeconds": workflow.window_s,
        "createdAt": wire_time(workflow.created_at),
    }


def _read_limit(text: str | None) -> int:
    if text is None:
        return DEFAULT_EVENTS
    if not re.fullmatch("[0-9]{1,4}", text) or not 1 <= int(text) <= MAX_EVENTS:
        raise InvalidQuery("limit", f"must be a whole number from 1 to {MAX_EVENTS}")
    return int(text)


async def _read_json(request: Request) -> Any:
    """Return the body as decoded JSON, of at most `MAX_QUERY_BYTES`."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_QUERY_BYTES:
            raise Refusal("BODY_TOO_LARGE", f"A question may have at most {MAX_QUERY_BYTES} bytes.")
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise InvalidQuery("body", f"is not JSON: {exc}") from exc
