-- name: slowest_cursor
select xid, commit_id from consumers order by xid, commit_id limit 1

-- name: lock_cursor
select xid, commit_id from consumers where name = $1 for update

-- name: move_cursor
update consumers set xid = $2::xid8, commit_id = $3 where name = $1

-- name: add_daily_counts
insert into daily_counts (project_id, day, name, event_count)
select * from unnest($1::bigint[], $2::date[], $3::text[], $4::bigint[])
on conflict (project_id, day, name) do update
set event_count = daily_counts.event_count + excluded.event_count

-- name: knows
select exists(select from commits where xid = $1::xid8 and commit_id = $2)

-- name: has_restored
-- A row can't be written by a transaction older than the one that `xid` names, unless it was restored
-- into a cluster that has not counted so far. (Where it has counted further, the order is right.)
select exists(
    select from commits where xid::text::numeric % 4294967296 > xmin::text::numeric
)

-- name: renumber_restored
-- Put what was restored before everything that this cluster commits, with each consumer where it
-- was: behind what it has seen, before the rest. Commits between two consumers get an even number,
-- the one at which a consumer stands the odd number after it, so that it is the last of those it
-- has seen. (By commit_id alone the order would be another one: transactions commit out of it.)
with restored as (
    -- All that came in the same transaction.
    select max(commit_id) as last
    from commits
    where xmin::text = (
        select max(xmin::text)
        from commits
        where xid::text::numeric % 4294967296 > xmin::text::numeric
    )
),
places as (
    select name, xid, commit_id from consumers where commit_id <= (select last from restored)
),
moved as (
    update consumers
    set xid = (
        select 2 * count(*) + 1
        from places
        where (places.xid, places.commit_id) < (consumers.xid, consumers.commit_id)
    )::text::xid8
    where name in (select name from places)
)
update commits
set xid = (
    select
        2 * count(*) filter (
            where (places.xid, places.commit_id) < (commits.xid, commits.commit_id)
        )
        + least(1, count(*) filter (
            where (places.xid, places.commit_id) = (commits.xid, commits.commit_id)
        ))
    from places
)::text::xid8
where commit_id <= (select last from restored)

-- name: remove_commits
-- Of the oldest $3 commits, those that are older than $4 and stand before the cursor ($1, $2).
delete from commits
where commit_id in (
    select commit_id
    from (
        select commit_id, committed_at
        from commits
        where (xid, commit_id) < ($1::xid8, $2::bigint)
        order by xid, commit_id
        limit $3
    ) as oldest
    where committed_at < now() - $4::interval
)
