-- name: find_key
-- The valid key with one of the digests $1; $2 is the name of the installation's own project.
select key_id, project_id, scopes, expires_at, allowed_origins, settings::text as settings,
    projects.name = $2 as of_installation, pepper
from api_keys
join projects using (project_id)
where digest = any($1::bytea[]) and revoked_at is null
    and (expires_at is null or expires_at > now())

-- name: keep_digest
update api_keys set digest = $2, pepper = $3 where key_id = $1

-- name: add_usage
-- Add to each key and day, in the order given; what is older than 400 days goes. The rows of
-- api_keys are locked in order first, so that two writers can't wait for each other in a circle.
with used as (
    select * from unnest($1::bigint[], $2::date[], $3::bigint[], $4::bigint[], $5::bigint[],
        $6::timestamptz[]) as used (key_id, day, requests, events, rejected, last_used_at)
), totals as (
    select key_id, sum(requests) as requests, max(last_used_at) as last_used_at
    from used group by key_id
), locked as materialized (
    select key_id from api_keys where key_id in (select key_id from used)
    order by key_id for no key update
), touched as (
    update api_keys set
        usage_count = usage_count + totals.requests,
        last_used_at = greatest(api_keys.last_used_at, totals.last_used_at)
    from totals
    where api_keys.key_id = totals.key_id and totals.key_id in (select key_id from locked)
), expired as (
    delete from key_usage
    where key_id in (select key_id from used) and day < (now() at time zone 'utc')::date - 400
)
insert into key_usage (key_id, day, requests, events, rejected)
select key_id, day, requests, events, rejected from used
where key_id in (select key_id from locked)
order by key_id, day
on conflict (key_id, day) do update set
    requests = key_usage.requests + excluded.requests,
    events = key_usage.events + excluded.events,
    rejected = key_usage.rejected + excluded.rejected

-- name: create_project
-- Make the project $1 with the settings $2 unless there is one of that name.
insert into projects (name, settings) values ($1, $2::jsonb) on conflict (name) do nothing
returning project_id, name, settings::text as settings, created_at

-- name: find_project
select project_id from projects where name = $1

-- name: list_projects
-- All projects, oldest first, or only the project $1.
select project_id, name, settings::text as settings, created_at
from projects
where $1::bigint is null or project_id = $1
order by project_id

-- name: lock_project
select name, settings::text as settings from projects where project_id = $1 for update

-- name: change_project
update projects set name = coalesce($2, name), settings = $3::jsonb
where project_id = $1
returning project_id, name, settings::text as settings, created_at

-- name: create_key
insert into api_keys (project_id, name, digest, prefix, scopes, expires_at, allowed_origins, pepper)
values ($1, $2, $3, $4, $5, $6, $7, $8)
returning key_id, created_at

-- name: list_keys
-- The keys of the project named $1 (null: of all), of the project $2 (null: of all), the key $3
-- (null: any); the newest $4 of them, oldest first.
select * from (
    select key_id, project_id, projects.name as project, api_keys.name, prefix, scopes,
        allowed_origins, api_keys.created_at, expires_at, revoked_at, replaced_by, pepper,
        last_used_at, usage_count
    from api_keys
    join projects using (project_id)
    where ($1::text is null or projects.name = $1)
        and ($2::bigint is null or project_id = $2)
        and ($3::bigint is null or key_id = $3)
    order by key_id desc
    limit $4
) as newest
order by key_id

-- name: change_key
-- Change of the key $1 what is to be changed: its name if $3, its end if $5, its origins if $7.
update api_keys set
    name = case when $3::boolean then $4 else name end,
    expires_at = case when $5::boolean then $6 else expires_at end,
    allowed_origins = case when $7::boolean then $8 else allowed_origins end
where key_id = $1 and ($2::bigint is null or project_id = $2)
returning key_id

-- name: lock_key
-- The key $1 (of the project $2 unless that is null), if it is to be replaced.
select project_id, name, scopes, allowed_origins, expires_at, created_at, replaced_by,
    revoked_at is null and (expires_at is null or expires_at > now()) as is_valid
from api_keys
where key_id = $1 and ($2::bigint is null or project_id = $2)
for update

-- name: replace_key
-- Let the key $1 end in the time $3, unless it ends before, and name its successor $2.
update api_keys set
    replaced_by = $2,
    expires_at = least(expires_at, now() + $3::interval)
where key_id = $1
returning expires_at

-- name: revoke_key
-- Revoke the key $1, once; the time of the first revocation stays.
update api_keys set revoked_at = coalesce(revoked_at, now())
where key_id = $1 and ($2::bigint is null or project_id = $2)
returning key_id, revoked_at

-- name: key_usage
-- What the key $1 was used for on the last $2 days, newest first.
select day, requests, events, rejected from key_usage
where key_id = $1 and day > (now() at time zone 'utc')::date - $2::integer
order by day desc
