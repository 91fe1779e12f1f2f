-- name: user_events
-- The newest events of a user; JSON columns as text, to be passed on unread.
select
    message_id::text as message_id, type, name, user_id, anonymous_id, session_id, group_id,
    previous_id,
    "timestamp", client_timestamp, received_at,
    properties::text as properties, traits::text as traits, context::text as context,
    extra::text as extra, enrichment::text as enrichment
from events
where project_id = $1 and user_id = $2
order by "timestamp" desc, seq desc
limit $3
