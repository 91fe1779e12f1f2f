-- name: store_events
-- Store a group of events in one transaction: the new ones, the row in `commits` that followers
-- of the log go by, and the traits that identify events carry. Return the positions (from 1) of
-- the events that were there before.
with input as materialized (
    select *
    from unnest(
        $1::bigint[], $2::uuid[], $3::timestamptz[], $4::timestamptz[], $5::timestamptz[],
        $6::boolean[], $7::text[], $8::text[], $9::text[], $10::text[], $11::text[], $12::text[],
        $13::text[], $14::jsonb[], $15::jsonb[], $16::jsonb[], $17::jsonb[]
    ) with ordinality as input (
        project_id, message_id, "timestamp", received_at, client_timestamp,
        timestamp_clamped, type, name, user_id, anonymous_id, session_id, group_id,
        previous_id, properties, traits, context, extra, position
    )
),
new_commit as materialized (
    select nextval('commit_ids') as commit_id
),
stored as (
    insert into events (
        commit_id, project_id, message_id, "timestamp", received_at, client_timestamp,
        timestamp_clamped, type, name, user_id, anonymous_id, session_id, group_id,
        previous_id, properties, traits, context, extra
    )
    select
        (select commit_id from new_commit),
        project_id, message_id, "timestamp", received_at, client_timestamp,
        timestamp_clamped, type, name, user_id, anonymous_id, session_id, group_id,
        previous_id, properties, traits, context, extra
    from input
    on conflict (project_id, message_id) do nothing
    returning project_id, message_id
),
identified as (
    -- Several identify events of one user become one row: the latest value of each trait.
    select
        input.project_id,
        input.user_id,
        coalesce(
            jsonb_object_agg(trait.key, trait.value order by input."timestamp", input.position)
                filter (where trait.key is not null),
            '{}'
        ) as traits,
        max(input."timestamp") as traits_at
    from input
    join stored using (project_id, message_id)
    left join lateral jsonb_each(coalesce(input.traits, '{}')) as trait on true
    where input.type = 'identify'
    group by input.project_id, input.user_id
),
merged as (
    insert into users (project_id, user_id, traits, traits_at)
    select project_id, user_id, traits, traits_at
    from identified
    order by project_id, user_id
    on conflict (project_id, user_id) do update set
        -- What was said later wins, in whatever order it arrives.
        traits = case
            when excluded.traits_at >= users.traits_at then users.traits || excluded.traits
            else excluded.traits || users.traits
        end,
        traits_at = greatest(users.traits_at, excluded.traits_at)
),
logged as (
    insert into commits (commit_id, xid, event_count)
    select new_commit.commit_id, pg_current_xact_id(), counted.event_count
    from new_commit, (select count(*) as event_count from stored) as counted
    where counted.event_count > 0
)
select case
    when (select count(*) from stored) = cardinality($2) then '{}'
    else (
        select array_agg(input.position)
        from input
        left join stored using (project_id, message_id)
        where stored.message_id is null
    )
end as duplicates

-- name: commits_after
-- The next commits of the log behind the cursor ($1, $2) that no transaction in progress can
-- still precede, at most $3 of them, each with its events as one JSON array in stored order.
with next_commits as materialized (
    select xid, commit_id, committed_at
    from commits
    where (xid, commit_id) > ($1::xid8, $2::bigint)
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
            'properties', properties, 'traits', traits, 'context', context
        ) order by seq)::text
        from events
        where events.commit_id = next_commits.commit_id
    ) as events
from next_commits
order by next_commits.xid, next_commits.commit_id
