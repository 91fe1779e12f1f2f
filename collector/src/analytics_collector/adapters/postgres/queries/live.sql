-- name: latest_commit
-- The last commit of the log that no transaction in progress can still precede.
select xid, commit_id
from commits
where xid < pg_snapshot_xmin(pg_current_snapshot())
order by xid desc, commit_id desc
limit 1

-- name: find_commit
-- The commit $2 if it is the one that had the transaction $1. In a database that was restored from
-- another cluster commits have other, small numbers (see `renumber_restored`), and a later one may
-- bear the id a second time. Until a worker has numbered them anew they are out of place.
select xid, commit_id, xid < pg_snapshot_xmax(pg_current_snapshot()) as is_in_place
from commits
where commit_id = $2
    and (xid = $1::xid8 or xid <= (select 2 * count(*) + 1 from consumers)::text::xid8)

-- name: live_after
-- As `commits_after` in events.sql, with the events of the project $4 only, if it is given; the
-- commit at the cursor itself comes first where $5 says so.
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
