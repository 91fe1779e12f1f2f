-- name: store_events
-- Store a group of events in one transaction, with the row in `commits` that followers of the log
-- go by. Events whose message id is known are left out. An array that is null is a column of
-- nulls: `unnest` fills up the shorter ones.
with new_commit as materialized (
    select nextval('commit_ids') as commit_id
),
stored as (
    insert into events (
        commit_id, project_id, message_id, "timestamp", received_at, client_timestamp,
        timestamp_clamped, type, name, user_id, anonymous_id, session_id, group_id,
        previous_id, properties, traits, context, extra, enrichment
    )
    select
        (select commit_id from new_commit),
        project_id, message_id, "timestamp", received_at, client_timestamp,
        coalesce(timestamp_clamped, false), type, name, user_id, anonymous_id, session_id, group_id,
        previous_id, properties, traits, context, extra, enrichment
    from unnest(
        $1::bigint[], $2::uuid[], $3::timestamptz[], $4::timestamptz[], $5::timestamptz[],
        $6::boolean[], $7::text[], $8::text[], $9::text[], $10::text[], $11::text[], $12::text[],
        $13::text[], $14::jsonb[], $15::jsonb[], $16::jsonb[], $17::jsonb[],
        $18::jsonb[]
    ) as input (
        project_id, message_id, "timestamp", received_at, client_timestamp,
        timestamp_clamped, type, name, user_id, anonymous_id, session_id, group_id,
        previous_id, properties, traits, context, extra, enrichment
    )
    on conflict (project_id, message_id) do nothing
    returning 1
),
counted as (
    select count(*) as event_count from stored
),
logged as (
    insert into commits (commit_id, xid, event_count)
    select new_commit.commit_id, pg_current_xact_id(), counted.event_count
    from new_commit, counted
    where counted.event_count > 0
)
select new_commit.commit_id, counted.event_count
from new_commit, counted

-- name: stored_ids
-- The ids of the events that the commit $1 stored.
select project_id, message_id::text as message_id from events where commit_id = $1

-- name: merge_traits
-- Merge what the identify events of the commit $1 say into the traits of their users. For each
-- trait what was said later wins, in whatever order it arrives.
with said as (
    select distinct on (project_id, user_id, key) project_id, user_id, key, value, "timestamp"
    from events, jsonb_each(traits)
    where commit_id = $1 and type = 'identify'
    order by project_id, user_id, key, "timestamp" desc, seq desc
),
identified as (
    select
        project_id,
        user_id,
        coalesce(jsonb_object_agg(key, value) filter (where key is not null), '{}') as traits,
        coalesce(jsonb_object_agg(key, "timestamp") filter (where key is not null), '{}') as times
    from (
        select distinct project_id, user_id
        from events
        where commit_id = $1 and type = 'identify'
    ) as identified_users
    left join said using (project_id, user_id)
    group by project_id, user_id
)
insert into users (project_id, user_id, traits, trait_times)
select project_id, user_id, traits, times
from identified
order by project_id, user_id
on conflict (project_id, user_id) do update set (traits, trait_times) = (
    select
        users.traits || coalesce(jsonb_object_agg(said.key, said.value), '{}'),
        users.trait_times || coalesce(jsonb_object_agg(said.key, times.value), '{}')
    from jsonb_each(excluded.traits) as said
    join jsonb_each_text(excluded.trait_times) as times using (key)
    where times.value::timestamptz
        >= coalesce((users.trait_times ->> key)::timestamptz, '-infinity')
)
-- Every identify writes the row anew, within the commit of others: it may not grow for ever.
-- What is compressed tells little, but where it is large already the rest need not be unpacked.
where case
    when pg_column_size(users.traits) + pg_column_size(users.trait_times) < 65536
    then octet_length(users.traits::text) + octet_length(users.trait_times::text) < 65536
end

-- name: commits_after
-- The next commits of the log behind the cursor ($1, $2) that no transaction in progress can
-- still precede, at most $3 of them, each with its events as one JSON array in stored order; with
-- those of the project $4 only, if it is given. The commit at the cursor itself comes first where
-- $5 says so.
with next_commits as materialized (
    select xid, commit_id
    from commits
    where (xid, commit_id) >= ($1::xid8, $2::bigint)
        and ($5 or (xid, commit_id) <> ($1::xid8, $2::bigint))
        and xid < pg_snapshot_xmin(pg_current_snapshot())
    order by xid, commit_id
    limit $3
)
select
    next_commits.xid,
    next_commits.commit_id,
    (
        select json_agg(json_build_object(
            'projectId', project_id, 'seq', seq, 'messageId', message_id, 'type', type,
            'name', name, 'userId', user_id, 'anonymousId', anonymous_id,
            'sessionId', session_id, 'groupId', group_id, 'previousId', previous_id,
            'timestamp', "timestamp", 'receivedAt', received_at,
            'clientTimestamp', client_timestamp,
            'properties', properties, 'traits', traits, 'context', context, 'extra', extra,
            'enrichment', enrichment
        ) order by seq)::text
        from events
        where events.commit_id = next_commits.commit_id
            and ($4::bigint is null or project_id = $4)
    ) as events
from next_commits
order by next_commits.xid, next_commits.commit_id
