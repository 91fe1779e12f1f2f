"""Is it alive, can it take events, how is what it depends on; and its numbers."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import Response

from analytics_collector import metrics
from analytics_collector.http.problems import json_response
from analytics_collector.version import __version__


async def livez(request: Request) -> Response:
    """Answer 200 as long as this process can answer at all; it depends on nothing else."""
    return json_response({"status": "ok"})


async def readyz(request: Request) -> Response:
    """Answer 200 if events can be made safe now, else 503."""
    ready = await request.app.state.services.probes.postgres()
    return json_response({"status": "ok" if ready else "unavailable"}, 200 if ready else 503)


async def health(request: Request) -> Response:
    """Tell each dependency apart; Redis away is `degraded`: events are safe, only later."""
    probes = request.app.state.services.probes
    postgres, redis = await probes.postgres(), await probes.redis()
    status = "unavailable" if not postgres else "ok" if redis else "degraded"
    return json_response(
        {
            "status": status,
            "version": __version__,
            "dependencies": {
                "postgres": "ok" if postgres else "unavailable",
                "redis": "ok" if redis else "unavailable",
            },
        },
        200 if postgres else 503,
    )


async def show_metrics(request: Request) -> Response:
    """Answer with the counters in Prometheus' text format."""
    return Response(
        generate_latest(metrics.REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST}
    )
