-- name: user_events
-- The newest $3 events of a user, as many as $4 bytes hold, one at least, and how many there are
-- without that bound; JSON columns as text, to be passed on unread.
with newest as (
    select
        message_id::text as message_id, type, name, user_id, anonymous_id, session_id, group_id,
        previous_id,
        "timestamp", client_timestamp, received_at, seq,
        properties::text as properties, traits::text as traits, context::text as context,
        extra::text as extra, enrichment::text as enrichment
    from events
    where project_id = $1 and user_id = $2
    order by "timestamp" desc, seq desc
    limit $3
),
sized as (
    select
        *,
        count(*) over () as found,
        row_number() over newest_first as place,
        sum(
            octet_length(properties) + coalesce(octet_length(traits), 0) + octet_length(context)
            + coalesce(octet_length(extra), 0) + coalesce(octet_length(enrichment), 0)
        ) over newest_first as size_bytes
    from newest
    window newest_first as (order by "timestamp" desc, seq desc)
)
select *
from sized
where place = 1 or size_bytes <= $4
order by place
