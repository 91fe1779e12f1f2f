"""POST /api/v1/events: from a connection to the pipeline and back.

The order of the checks is part of the specification: who asks, how often, then what was sent.
A stranger learns nothing about formats, and none of its bytes reaches a parser.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from analytics_collector import metrics
from analytics_collector.errors import Refusal, StoreUnavailable
from analytics_collector.http.auth import authorize
from analytics_collector.http.body import Body
from analytics_collector.http.peer import client_ip
from analytics_collector.http.problems import problem, store_unavailable, verdict
from analytics_collector.ingest.buckets import Allowance
from analytics_collector.ingest.decode import check_content_type, is_gzip
from analytics_collector.model import NO_SENDER, Accepted, Sender

_Headers = list[tuple[bytes, bytes]]

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
            if not await body.discard():
                response.headers["Connection"] = "close"
        else:
            _ACCEPTED.inc()
            await _send_accepted(send, accepted, rate_headers, scope["request_id"])
            return
        metrics.ANSWERS.labels(str(response.status_code)).inc()
        await response(scope, receive, send)


async def _accept(
    request: Request, headers: dict[bytes, bytes], body: Body, rate_headers: _Headers
) -> Accepted:
    services = request.app.state.services
    key = await authorize(request, "ingest")
    allowance = await services.pipeline.admit(key)
    rate_headers += _rate_headers(allowance)
    if allowance.retry_after_s:
        raise Refusal("RATE_LIMITED", headers={"Retry-After": str(allowance.retry_after_s)})
    await services.pipeline.check_quota(key)
    check_content_type(_text(headers.get(b"content-type")))
    gzipped = is_gzip(_text(headers.get(b"content-encoding")))
    with services.in_flight.share() as share:
        content = await body.read(share)
        accepted: Accepted = await services.pipeline.accept(
            content, gzipped, key, share.grow_to, sender=_sender(request, headers)
        )
    return accepted


def _sender(request: Request, headers: dict[bytes, bytes]) -> Sender:
    # A browser names the origin of the page. Other senders are servers: their address and program
    # say nothing of the user.
    if b"origin" not in headers:
        return NO_SENDER
    trusted_proxies = request.app.state.services.trusted_proxies
    return Sender(client_ip(request.scope, trusted_proxies), _text(headers.get(b"user-agent")))


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")


async def _send_accepted(
    send: Send, accepted: Accepted, rate_headers: _Headers, request_id: str
) -> None:
    body = orjson.dumps(
        {
            "status": "accepted",
            "eventCount": accepted.event_count,
            "queuedId": f"batch_{request_id}",
            "processingAt": datetime.now(UTC).isoformat(timespec="milliseconds")[:23] + "Z",
            "duplicates": accepted.duplicates,
            "durability": accepted.durability,
            "rejected": [verdict(rejection) for rejection in accepted.rejected],
        }
    )
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        *rate_headers,
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
