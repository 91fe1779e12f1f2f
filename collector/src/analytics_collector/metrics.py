"""Every counter of the collector, declared once. Labels have few values, none from clients.

Where several processes serve together, counters add up; a gauge says how its values join.
"""

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
    "analytics_bytes_in_flight",
    "Bytes of bodies being read or stored.",
    multiprocess_mode="livesum",
    registry=REGISTRY,
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
LAG_SECONDS = Gauge(
    "analytics_lag_seconds",
    "How long the oldest commit that a consumer (or the publisher) has not passed has waited; 0 if "
    "none does. Told by workers.",
    ["consumer"],
    multiprocess_mode="livemax",
    registry=REGISTRY,
)
LAG_COMMITS = Gauge(
    "analytics_lag_commits",
    "Commits that a consumer (or the publisher) has not passed, up to 10,000.",
    ["consumer"],
    multiprocess_mode="livemax",
    registry=REGISTRY,
)
LAG_MEASURED = Gauge(
    "analytics_lag_measured_timestamp_seconds",
    "When the lags were last measured, in seconds since 1970.",
    multiprocess_mode="livemax",
    registry=REGISTRY,
)
STREAM_ENTRIES = Gauge(
    "analytics_stream_entries",
    "Commits that the Redis stream holds.",
    multiprocess_mode="livemax",
    registry=REGISTRY,
)
USAGE_DROPPED = Counter(
    "analytics_key_usage_dropped",
    "Uses of keys that were not counted since too many counts wait to be written.",
    registry=REGISTRY,
)
RATE_LIMITED = Counter(
    "analytics_rate_limited",
    "Requests refused by a limit (key, project, user, address) or by the monthly quota.",
    ["limit"],
    registry=REGISTRY,
)
LIMITS_SHARED = Gauge(
    "analytics_limits_shared",
    "1 while the processes share their limits in Redis, 0 while each keeps them alone.",
    multiprocess_mode="livemin",
    registry=REGISTRY,
)
SESSIONS_ALONE = Counter(
    "analytics_sessions_alone",
    "Times this process decided alone which session events belong to, since Redis was away.",
    registry=REGISTRY,
)
SESSIONS_FORGOTTEN = Counter(
    "analytics_sessions_forgotten",
    "Streams whose sessions Redis had lost and Postgres was not there to tell.",
    registry=REGISTRY,
)
GEO_FAILURES = Counter(
    "analytics_geo_failures",
    "Addresses that the geo database gave no readable answer to.",
    registry=REGISTRY,
)
LOCAL_LIMITS = Counter(
    "analytics_limits_local",
    "Requests let through by this process alone, without Redis.",
    registry=REGISTRY,
)
SPOOL_EVENTS = Gauge(
    "analytics_spool_events",
    "Events that wait in the spool of this host.",
    multiprocess_mode="livemax",
    registry=REGISTRY,
)
SPOOL_BYTES = Gauge(
    "analytics_spool_bytes",
    "Bytes that the spool of this host holds.",
    multiprocess_mode="livemax",
    registry=REGISTRY,
)
SPOOL_AGE = Gauge(
    "analytics_spool_age_seconds",
    "How long the oldest event in the spool has waited; 0 if none does.",
    multiprocess_mode="livemax",
    registry=REGISTRY,
)
SPOOL_REFUSED = Gauge(
    "analytics_spool_refused_events",
    "Acknowledged events that Postgres will not have, kept apart in the spool.",
    multiprocess_mode="livemax",
    registry=REGISTRY,
)
SPOOLED = Counter(
    "analytics_spooled_events", "Events acknowledged from the spool.", registry=REGISTRY
)
SPOOL_DRAINED = Counter(
    "analytics_spool_drained_events",
    "Events taken out of the spool, by what became of them (stored, duplicate, refused).",
    ["outcome"],
    registry=REGISTRY,
)
SPOOL_FULL = Counter(
    "analytics_spool_full", "Groups of events refused since the spool was full.", registry=REGISTRY
)
SPOOL_FAILURES = Counter(
    "analytics_spool_failures", "Times that the spool could not be used.", registry=REGISTRY
)
KEYS_RECALLED = Counter(
    "analytics_keys_recalled",
    "Look-ups of keys answered from memory since Postgres was away.",
    registry=REGISTRY,
)
LIVE_LISTENERS = Gauge(
    "analytics_live_listeners",
    "Clients that listen to the live tail.",
    multiprocess_mode="livesum",
    registry=REGISTRY,
)
LIVE_EVENTS = Counter(
    "analytics_live_events", "Events sent to listeners of the live tail.", registry=REGISTRY
)
LIVE_ENDED = Counter(
    "analytics_live_ended",
    "Listeners of the live tail that were ended (slow, shutdown, key, interrupted).",
    ["reason"],
    registry=REGISTRY,
)
DEAD_LETTERS = Counter(
    "analytics_dead_letters",
    "Events given up on and kept, by the stage that did (decode, validate, schema, store, "
    "consumer:NAME). Alert on those of consumers.",
    ["stage"],
    registry=REGISTRY,
)
DEAD_LETTERS_DROPPED = Counter(
    "analytics_dead_letters_dropped",
    "Rejected events that were not kept, since too many wait or Postgres was away.",
    registry=REGISTRY,
)
DEAD_LETTERS_REMOVED = Counter(
    "analytics_dead_letters_removed",
    "Dead letters that the worker removed: expired, or more than a project may have.",
    ["reason"],
    registry=REGISTRY,
)
CONSUMER_FAILURES = Counter(
    "analytics_consumer_failures",
    "Times that a consumer could not apply a commit for a reason that lies in its events.",
    ["consumer"],
    registry=REGISTRY,
)
JOB_SECONDS = Histogram(
    "analytics_job_seconds",
    "Time that a run of a job of the worker took (housekeeping).",
    ["job_name"],
    buckets=(*_SECONDS, 30.0, 60.0),
    registry=REGISTRY,
)
COMMITS_REMOVED = Counter(
    "analytics_commits_removed",
    "Old rows of the log of commits that the worker removed; their events stay.",
    registry=REGISTRY,
)
SCHEMA_VIOLATIONS = Counter(
    "analytics_schema_violations",
    "Events that their event schema refuses, by what became of them (stored, rejected).",
    ["outcome"],
    registry=REGISTRY,
)
SCHEMA_UNCHECKED = Counter(
    "analytics_schema_unchecked",
    "Events taken without a look at their schema (unknown: it could not be loaded; slow: checks of "
    "the project took too long).",
    ["reason"],
    registry=REGISTRY,
)
SCHEMA_FINDINGS_DROPPED = Counter(
    "analytics_schema_findings_dropped",
    "Events missing from the report on schemas since too much of it waits to be written.",
    registry=REGISTRY,
)
