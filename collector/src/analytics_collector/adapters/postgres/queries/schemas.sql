-- name: load_plan
-- The revision of the project $1 and its schemas, a row for each; a row of nulls if it has none.
select coalesce(revision, 0) as revision, found.name, found.version, found.mode, found.document
from (select $1::bigint as project_id) as asked
left join event_plans using (project_id)
left join (
    select project_id, name, version, mode, document::text as document
    from event_schemas
    join event_schema_versions using (project_id, name, version)
    where project_id = $1 and removed_at is null
) as found using (project_id)

-- name: plan_revisions
select project_id, revision from event_plans where project_id = any($1::bigint[])

-- name: next_revision
-- Also makes changes of one project wait for each other.
insert into event_plans (project_id, revision) values ($1, 1)
on conflict (project_id) do update set revision = event_plans.revision + 1

-- name: find_schema
select version, mode, removed_at is not null as is_removed, digest, document::text as document,
    changed_at
from event_schemas
join event_schema_versions using (project_id, name, version)
where project_id = $1 and name = $2

-- name: plan_size
-- How much the project $1 has without the event $2, and how many versions in all.
select
    count(*) filter (where is_valid and name <> $2) as schemas,
    coalesce(sum(size_bytes) filter (where is_valid and name <> $2), 0) as size_bytes,
    coalesce(sum(patterns) filter (where is_valid and name <> $2), 0) as patterns,
    count(*) as versions
from (
    select versions.name, size_bytes, patterns,
        versions.version = event_schemas.version and removed_at is null as is_valid
    from event_schema_versions as versions
    join event_schemas using (project_id, name)
    where project_id = $1
) as sizes

-- name: put_schema
-- The event $2 has the version $3 from now on. $4 is its mode, which stays if $5 is false.
insert into event_schemas (project_id, name, version, mode) values ($1, $2, $3, $4)
on conflict (project_id, name) do update set
    version = excluded.version,
    mode = case when $5::boolean then excluded.mode else event_schemas.mode end,
    changed_at = now(),
    removed_at = null

-- name: put_version
insert into event_schema_versions
    (project_id, name, version, document, digest, size_bytes, patterns)
values ($1, $2, $3, $4, $5, $6, $7)

-- name: remove_schema
update event_schemas set removed_at = now(), changed_at = now()
where project_id = $1 and name = $2 and removed_at is null
returning version

-- name: list_schemas
-- The schemas of the project $1, of the event $2 only unless that is null.
select name, version, mode, changed_at, document::text as document
from event_schemas
join event_schema_versions using (project_id, name, version)
where project_id = $1 and removed_at is null and ($2::text is null or name = $2)
order by name

-- name: list_versions
select name, version, created_at
from event_schema_versions
where project_id = $1 and ($2::text is null or name = $2)
order by name, version

-- name: find_version
select document::text as document, created_at
from event_schema_versions
where project_id = $1 and name = $2 and version = $3

-- name: add_findings
-- Add up what was found. A project has at most $7 names that no schema is known for (version 0);
-- those beyond are left out. What was not seen for 30 days goes.
with found as (
    select * from unnest($1::bigint[], $2::text[], $3::integer[], $4::bigint[], $5::bigint[],
        $6::timestamptz[], $8::timestamptz[])
        as found (project_id, name, version, event_count, rejected_count, first_seen_at,
            last_seen_at)
), expired as (
    delete from schema_findings
    where project_id in (select project_id from found)
        and last_seen_at < now() - interval '30 days'
        and not exists (
            select from found
            where (found.project_id, found.name, found.version)
                = (schema_findings.project_id, schema_findings.name, schema_findings.version)
        )
), room as (
    select project_id, $7 - count(*) filter (where version = 0) as room
    from schema_findings
    where project_id in (select project_id from found)
    group by project_id
), ranked as (
    select found.*,
        stored.name is not null as is_known,
        row_number() over (
            partition by found.project_id, found.version = 0, stored.name is null
            order by found.name
        ) as place
    from found
    left join schema_findings as stored using (project_id, name, version)
)
insert into schema_findings as stored
    (project_id, name, version, event_count, rejected_count, first_seen_at, last_seen_at)
select project_id, name, version, event_count, rejected_count, first_seen_at, last_seen_at
from ranked
left join room using (project_id)
where is_known or version > 0 or place <= coalesce(room, $7)
order by project_id, name, version
on conflict (project_id, name, version) do update set
    event_count = stored.event_count + excluded.event_count,
    rejected_count = stored.rejected_count + excluded.rejected_count,
    first_seen_at = least(stored.first_seen_at, excluded.first_seen_at),
    last_seen_at = greatest(stored.last_seen_at, excluded.last_seen_at)

-- name: add_faults
-- Add up what was wrong; a finding has at most $7 kinds of it.
with found as (
    select * from unnest($1::bigint[], $2::text[], $3::integer[], $4::text[], $5::text[],
        $6::bigint[])
        as found (project_id, name, version, place, keyword, event_count)
), room as (
    select project_id, name, version, $7 - count(*) as room
    from schema_faults
    where (project_id, name, version) in (select project_id, name, version from found)
    group by project_id, name, version
), ranked as (
    select found.*,
        stored.place is not null as is_known,
        row_number() over (
            partition by found.project_id, found.name, found.version, stored.place is null
            order by found.place, found.keyword
        ) as rank
    from found
    join schema_findings using (project_id, name, version)
    left join schema_faults as stored using (project_id, name, version, place, keyword)
)
insert into schema_faults as stored
    (project_id, name, version, place, keyword, event_count)
select project_id, name, version, place, keyword, ranked.event_count
from ranked
left join room using (project_id, name, version)
where is_known or rank <= coalesce(room, $7)
order by project_id, name, version, place, keyword
on conflict (project_id, name, version, place, keyword) do update set
    event_count = stored.event_count + excluded.event_count

-- name: read_findings
select name, version, event_count, rejected_count, first_seen_at, last_seen_at
from schema_findings
where project_id = $1
order by version = 0, event_count desc, name, version

-- name: read_faults
select name, version, place, keyword, event_count
from schema_faults
where project_id = $1
order by event_count desc, place, keyword

-- name: event_names
-- The names of events of the project $1, from the index alone, a hop for each name.
with recursive names as (
    (select name from events where project_id = $1 order by name limit 1)
    union all
    select (
        select name from events
        where project_id = $1 and name > names.name
        order by name limit 1
    )
    from names
    where names.name is not null
)
select name from names where name is not null limit $2

-- name: sample_events
-- The newest $4 events of a name since $3, as far as a schema speaks of them.
select case when type in ('identify', 'group') then traits else properties end::text as value
from events
where project_id = $1 and name = $2 and "timestamp" >= $3 and type <> 'alias'
order by "timestamp" desc
limit $4
