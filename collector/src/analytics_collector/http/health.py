"""Is it alive, can it take events, how is what it depends on; and its numbers."""

from __future__ import annotations

import time

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from starlette.requests import Request
from starlette.responses import Response

from analytics_collector import metrics
from analytics_collector.errors import StoreUnavailable
from analytics_collector.http.problems import json_response
from analytics_collector.ingest.spooling import Spooling
from analytics_collector.settings import shared_metrics_dir
from analytics_collector.version import __version__


async def livez(request: Request) -> Response:
    """Answer 200 as long as this process can answer at all; it depends on nothing else."""
    return json_response({"status": "ok"})


async def readyz(request: Request) -> Response:
    """Answer 200 if events can be made safe now, else 503."""
    services = request.app.state.services
    outage = services.outage
    if outage is not None and await outage.spooling.has_room():
        ready = True
    else:
        # A spool that is full or broken hinders nobody as long as nothing waits in it.
        may_pass = outage is None or outage.spooling.is_empty
        ready = may_pass and await services.probes.postgres()
    return json_response({"status": "ok" if ready else "unavailable"}, 200 if ready else 503)


async def health(request: Request) -> Response:
    """Tell each dependency apart; `degraded`: events are safe, and some come home only later."""
    services = request.app.state.services
    postgres, redis = await services.probes.postgres(), await services.probes.redis()
    takes_events, is_whole = postgres, postgres and redis
    members: dict[str, object] = {}
    if services.outage is not None:
        spool, has_room = await _spool(services.outage.spooling)
        members["spool"] = spool
        is_empty = services.outage.spooling.is_empty
        takes_events = has_room or (postgres and is_empty)
        is_whole = is_whole and has_room and is_empty
    return json_response(
        {
            "status": "ok" if is_whole else "degraded" if takes_events else "unavailable",
            "version": __version__,
            "dependencies": {
                "postgres": "ok" if postgres else "unavailable",
                "redis": "ok" if redis else "unavailable",
            },
            **members,
        },
        200 if takes_events else 503,
    )


async def _spool(spooling: Spooling) -> tuple[dict[str, object], bool]:
    """Return what is told of the spool, and whether it has room."""
    has_room = await spooling.has_room()
    try:
        state = await spooling.state()
    except StoreUnavailable:
        return {"status": "failing"}, False
    age_s = 0.0 if state.oldest_at is None else max(0.0, time.time() - state.oldest_at)
    told: dict[str, object] = {
        "status": "ok" if has_room else "full" if spooling.is_full(state) else "failing",
        "events": state.events,
        "bytes": state.bytes,
        "maxBytes": state.max_bytes,
        "oldestAgeS": round(age_s, 1),
        "refusedEvents": state.refused,
    }
    return told, has_room


async def show_metrics(request: Request) -> Response:
    """Answer with the counters in Prometheus' text format, of all workers of this server."""
    registry = metrics.REGISTRY
    if (folder := shared_metrics_dir()) is not None:
        registry = CollectorRegistry()
        MultiProcessCollector(registry, folder)  # type: ignore[no-untyped-call]
    return Response(generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})
