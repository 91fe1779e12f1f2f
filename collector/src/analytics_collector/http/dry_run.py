"""POST /api/v1/events/validate: what would become of a batch. Nothing of it is kept or counted."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from analytics_collector.errors import Refusal
from analytics_collector.http.auth import authorize
from analytics_collector.http.body import Body
from analytics_collector.http.problems import json_response, problem, verdict, violation
from analytics_collector.ingest.decode import check_content_type, is_gzip
from analytics_collector.ingest.pipeline import Examined
from analytics_collector.ingest.schemas import Verdict


async def validate_events(request: Request) -> Response:
    """Answer as POST /api/v1/events would, with 200 for 202, and tell all that schemas say.

    It is a request like any other to the limits of key and project, and no event to any.
    """
    headers = dict(request.scope["headers"])
    body = Body(request.receive, headers)
    try:
        examined = await _examine(request, headers, body)
    except Refusal as exc:
        response = problem(exc, request.scope["request_id"])
        if not await body.discard():
            response.headers["Connection"] = "close"
        return response
    findings = {
        "rejected": [verdict(rejection) for rejection in examined.rejected],
        "schemas": [_schema_verdict(found) for found in examined.verdicts if found.violations],
        "unplanned": [_unplanned(found) for found in examined.verdicts if not found.violations],
    }
    if not examined.event_count:
        refusal = Refusal("ALL_EVENTS_REJECTED", details=dict(findings))
        return problem(refusal, request.scope["request_id"])
    return json_response({"status": "valid", "eventCount": examined.event_count, **findings})


async def _examine(request: Request, headers: dict[bytes, bytes], body: Body) -> Examined:
    services = request.app.state.services
    key = await authorize(request, "ingest")
    allowance = await services.pipeline.admit(key)
    if allowance.retry_after_s:
        raise Refusal("RATE_LIMITED", headers={"Retry-After": str(allowance.retry_after_s)})
    check_content_type(_text(headers.get(b"content-type")))
    gzipped = is_gzip(_text(headers.get(b"content-encoding")))
    with services.in_flight.share(key.project_id) as share:
        content = await body.read(share)
        examined: Examined = await services.pipeline.examine(content, gzipped, key, share.grow_to)
    return examined


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")


def _schema_verdict(found: Verdict) -> dict[str, Any]:
    return {
        "index": found.index,
        "messageId": found.message_id,
        "name": found.name,
        "version": found.version,
        "mode": found.mode,
        "violations": [violation(each) for each in found.violations],
    }


def _unplanned(found: Verdict) -> dict[str, Any]:
    return {"index": found.index, "messageId": found.message_id, "name": found.name}
