"""Put many events into a database, as if they had come over the last 30 days."""

from __future__ import annotations

import time

import asyncpg

_CHUNK = 500_000
_FILL = """
insert into events (
    commit_id, project_id, message_id, "timestamp", received_at, timestamp_clamped,
    type, name, user_id, session_id, properties, context, enrichment
)
select
    0, 1, uuidv7(at - now()), at, at, false,
    'track', 'event_' || n % 20, 'user-' || n % 100000, 'session-' || n / 10,
    jsonb_build_object('order_id', 'o-' || n, 'amount', n % 1000 / 10.0, 'currency', 'EUR',
        'quantity', n % 5, 'plan', 'pro', 'is_trial', false),
    jsonb_build_object('library', jsonb_build_object('name', 'analytics-js', 'version', '0.1.0'),
        'page', jsonb_build_object('path', '/p/' || n % 500, 'title', 'Page')),
    jsonb_build_object('browser', jsonb_build_object('name', 'Chrome', 'version', '130'))
from (
    select n, now() - interval '30 days' + n::float8 / $3 * interval '29 days' as at
    from generate_series($1::bigint + 1, $2::bigint) as n
) as series
"""


async def fill_up_to(database_url: str, rows: int) -> float:
    """Bring the table of events to about *rows*; return how many seconds that took."""
    started = time.perf_counter()
    connection = await asyncpg.connect(database_url)
    present: int = await connection.fetchval("select count(*) from events")
    for first in range(present, rows, _CHUNK):
        await connection.execute(_FILL, first, min(first + _CHUNK, rows), rows, timeout=600)
    if rows > present:
        await connection.execute("vacuum (analyze) events", timeout=600)
        await connection.execute("checkpoint", timeout=600)
    await connection.close()
    return time.perf_counter() - started
