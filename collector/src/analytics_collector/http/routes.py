"""Every URL, in one list."""

from __future__ import annotations

from typing import Final

from starlette.convertors import Convertor, register_url_convertor
from starlette.routing import Route

from analytics_collector.http import (
    admin,
    cors,
    dead_letters,
    docs,
    dry_run,
    health,
    query,
    schemas,
    script,
)
from analytics_collector.http.cors import Preflights
from analytics_collector.http.ingest import IngestEndpoint
from analytics_collector.http.live import live


class _Text(Convertor[str]):
    """Any text, also with slashes and line breaks, which an identifier may have."""

    regex = "(?s:.*)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("text", _Text())

# What takes events, from web pages too.
INGEST: Final = "/api/v1/events"


def routes() -> list[Route]:
    """Return the routes, the busiest first."""
    return [
        Route(INGEST, Preflights(IngestEndpoint()), methods=cors.METHODS),
        Route("/api/v1/events/validate", dry_run.validate_events, methods=["POST"]),
        Route("/api/v1/users/{user_id:text}/events", query.user_events, methods=["GET"]),
        Route("/api/v1/analytics/funnel", query.funnel, methods=["POST"]),
        Route("/api/v1/workflows", query.list_workflows, methods=["GET"]),
        Route("/api/v1/workflows", query.create_workflow, methods=["POST"]),
        Route("/api/v1/workflows/{workflow_id}", query.get_workflow, methods=["GET"]),
        Route("/api/v1/workflows/{workflow_id}", query.delete_workflow, methods=["DELETE"]),
        *admin.ROUTES,
        *schemas.ROUTES,
        *dead_letters.ROUTES,
        Route("/api/v1/live", live, methods=["GET"]),
        Route(script.PATH, script.script, methods=["GET"]),
        Route("/openapi.json", docs.openapi, methods=["GET"]),
        Route("/api-docs", docs.page, methods=["GET"]),
        Route("/api-docs/{name}", docs.asset, methods=["GET"]),
        Route("/livez", health.livez, methods=["GET"]),
        Route("/readyz", health.readyz, methods=["GET"]),
        Route("/health", health.health, methods=["GET"]),
        Route("/metrics", health.show_metrics, methods=["GET"]),
    ]
