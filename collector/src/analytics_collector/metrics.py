"""Every counter of the collector, declared once. Labels have few values, none from clients."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

REGISTRY = CollectorRegistry()

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

EVENTS = Counter(
    "analytics_events",
    "Events received, by what became of them (accepted, duplicate, rejected).",
    ["outcome"],
    registry=REGISTRY,
)
REJECTIONS = Counter(
    "analytics_rejected_events", "Events refused, by code.", ["code"], registry=REGISTRY
)
ANSWERS = Counter(
    "analytics_ingest_answers",
    "Answers of POST /api/v1/events, by status.",
    ["status"],
    registry=REGISTRY,
)
COMMITS = Counter("analytics_commits", "Group commits that Postgres confirmed.", registry=REGISTRY)
COMMIT_FAILURES = Counter(
    "analytics_commit_failures", "Group commits that Postgres did not confirm.", registry=REGISTRY
)
COMMIT_SECONDS = Histogram(
    "analytics_commit_seconds",
    "Time that Postgres took for a group commit.",
    buckets=_SECONDS,
    registry=REGISTRY,
)
COMMIT_EVENTS = Histogram(
    "analytics_commit_events",
    "Events in a group commit.",
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000),
    registry=REGISTRY,
)
BYTES_IN_FLIGHT = Gauge(
    "analytics_bytes_in_flight", "Bytes of bodies being read or stored.", registry=REGISTRY
)
PUBLISHED = Counter(
    "analytics_published_commits", "Commits appended to the Redis stream.", registry=REGISTRY
)
RESYNCS = Counter(
    "analytics_publisher_resyncs",
    "Times the publisher found a stream that was not as it left it.",
    registry=REGISTRY,
)
CONSUMED = Counter(
    "analytics_consumed_commits",
    "Commits that a consumer applied.",
    ["consumer"],
    registry=REGISTRY,
)
