"""POST /api/v1/events: from a connection to the pipeline and back.

The order of the checks is part of the specification: who asks, how often, then what was sent.
A stranger learns nothing about formats, and none of its bytes reaches a parser.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from analytics_collector import metrics
from analytics_collector.errors import Refusal, StoreUnavailable
from analytics_collector.http import visitor_cookie
from analytics_collector.http.auth import authorize
from analytics_collector.http.body import Body
from analytics_collector.http.cors import IS_NAMED_PAGE
from analytics_collector.http.peer import came_by_https, client_ip
from analytics_collector.http.problems import problem, store_unavailable, verdict
from analytics_collector.ingest.buckets import Allowance
from analytics_collector.ingest.decode import check_content_type, is_gzip
from analytics_collector.model import NO_SENDER, Accepted, ApiKey, Sender
from analytics_collector.origins import names

_Headers = list[tuple[bytes, bytes]]

# In the scope of a request: the project of its key, once that is known.
_PROJECT = "project_id"

_ACCEPTED = metrics.ANSWERS.labels("202")


class IngestEndpoint:
    """Takes batches of events. A plain ASGI application, since it is the busiest by far."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        headers = dict(scope["headers"])
        body = Body(receive, headers)
        rate_headers: _Headers = []
        try:
            accepted = await _accept(request, headers, body, rate_headers)
        except ClientDisconnect:
            return
        except StoreUnavailable as exc:
            response = _refused(request, store_unavailable(exc), rate_headers)
        except Refusal as exc:
            response = _refused(request, exc, rate_headers)
        else:
            _ACCEPTED.inc()
            more = rate_headers + _visitor_headers(request, accepted)
            await _send_accepted(send, accepted, more, scope["request_id"])
            return
        if response.status_code == 429:
            limiter = request.app.state.services.limiter
            await asyncio.sleep(limiter.hold_s(scope[_PROJECT]))
        if not await body.discard():
            response.headers["Connection"] = "close"
        metrics.ANSWERS.labels(str(response.status_code)).inc()
        await response(scope, receive, send)


async def _accept(
    request: Request, headers: dict[bytes, bytes], body: Body, rate_headers: _Headers
) -> Accepted:
    services = request.app.state.services
    key = await authorize(request, "ingest")
    request.scope[_PROJECT] = key.project_id
    allowance = await services.pipeline.admit(key)
    rate_headers += _rate_headers(allowance)
    if allowance.retry_after_s:
        raise Refusal("RATE_LIMITED", headers={"Retry-After": str(allowance.retry_after_s)})
    await services.pipeline.check_quota(key)
    check_content_type(_text(headers.get(b"content-type")))
    gzipped = is_gzip(_text(headers.get(b"content-encoding")))
    with services.in_flight.share(key.project_id) as share:
        content = await body.read(share)
        accepted: Accepted = await services.pipeline.accept(
            content, gzipped, key, share.grow_to, sender=_sender(request, headers, key)
        )
    return accepted


def _sender(request: Request, headers: dict[bytes, bytes], key: ApiKey) -> Sender:
    # A browser names the origin of the page. Other senders are servers: their address and program
    # say nothing of the user.
    if b"origin" not in headers:
        return NO_SENDER
    request.scope[IS_NAMED_PAGE] = is_named = names(key.allowed_origins, headers[b"origin"])
    wants_cookie = is_named and visitor_cookie.is_wanted(key, headers)
    trusted_proxies = request.app.state.services.trusted_proxies
    return Sender(
        client_ip(request.scope, trusted_proxies),
        _text(headers.get(b"user-agent")),
        visitor_cookie.recall(headers) if wants_cookie else None,
    )


def _visitor_headers(request: Request, accepted: Accepted) -> _Headers:
    if accepted.anonymous_id is None:
        return []
    trusted_proxies = request.app.state.services.trusted_proxies
    is_secure = came_by_https(request.scope, trusted_proxies)
    return visitor_cookie.remember(accepted.anonymous_id, is_secure=is_secure)


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")


async def _send_accepted(send: Send, accepted: Accepted, more: _Headers, request_id: str) -> None:
    answer: dict[str, Any] = {
        "status": "accepted",
        "eventCount": accepted.event_count,
        "queuedId": f"batch_{request_id}",
        "processingAt": datetime.now(UTC).isoformat(timespec="milliseconds")[:23] + "Z",
        "duplicates": accepted.duplicates,
        "durability": accepted.durability,
        "rejected": [verdict(rejection) for rejection in accepted.rejected],
    }
    if accepted.anonymous_id is not None:
        answer["anonymousId"] = accepted.anonymous_id
    body = orjson.dumps(answer)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        *more,
    ]
    await send({"type": "http.response.start", "status": 202, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _refused(request: Request, refusal: Refusal, rate_headers: _Headers) -> Response:
    rejected: Any = refusal.details.get("rejected")
    if rejected is not None:
        refusal.details["rejected"] = [verdict(rejection) for rejection in rejected]
    response = problem(refusal, request.scope["request_id"])
    if "x-ratelimit-limit" not in response.headers:  # else it tells of the limit that refused
        response.raw_headers += rate_headers
    return response


def _rate_headers(allowance: Allowance) -> _Headers:
    return [
        (b"x-ratelimit-limit", b"%d" % allowance.limit),
        (b"x-ratelimit-remaining", b"%d" % allowance.remaining),
        (b"x-ratelimit-reset", b"%d" % allowance.reset_s),
    ]
