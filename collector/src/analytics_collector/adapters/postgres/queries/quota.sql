-- name: add_usage
-- Add $3 events to the projects $1 in the months $2; return what each has now. In the order of
-- the key, so that two processes never wait for each other.
insert into monthly_usage (project_id, month, event_count)
select project_id, month, event_count
from unnest($1::bigint[], $2::date[], $3::bigint[]) as added (project_id, month, event_count)
order by project_id, month
on conflict (project_id, month) do update
    set event_count = monthly_usage.event_count + excluded.event_count
returning project_id, month, event_count

-- name: read_usage
-- What the projects $1 have stored in the month $2.
select project_id, event_count from monthly_usage where project_id = any($1) and month = $2
