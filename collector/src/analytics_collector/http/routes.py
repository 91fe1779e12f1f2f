"""Every URL, in one list."""

from __future__ import annotations

from starlette.routing import Route

from analytics_collector.http import health, query
from analytics_collector.http.ingest import IngestEndpoint


def routes() -> list[Route]:
    """Return the routes, the busiest first."""
    return [
        Route("/api/v1/events", IngestEndpoint(), methods=["POST"]),
        Route("/api/v1/users/{user_id:path}/events", query.user_events, methods=["GET"]),
        Route("/api/v1/analytics/funnel", query.funnel, methods=["POST"]),
        Route("/api/v1/workflows", query.list_workflows, methods=["GET"]),
        Route("/api/v1/workflows", query.create_workflow, methods=["POST"]),
        Route("/api/v1/workflows/{workflow_id}", query.get_workflow, methods=["GET"]),
        Route("/api/v1/workflows/{workflow_id}", query.delete_workflow, methods=["DELETE"]),
        Route("/livez", health.livez, methods=["GET"]),
        Route("/readyz", health.readyz, methods=["GET"]),
        Route("/health", health.health, methods=["GET"]),
        Route("/metrics", health.show_metrics, methods=["GET"]),
    ]
