-- name: lags
-- How far each consumer and the publisher are behind the end of the log. The publisher is at the
-- commit ($1, $2); if the log has none there it will begin where the slowest consumer is. Counts up
-- to $3. Commits that a transaction in progress still holds back wait, too.
with published as (
    select xid, commit_id
    from (
        select 1 as choice, xid, commit_id from commits where xid = $1::xid8 and commit_id = $2::bigint
        union all
        select 2, xid, commit_id from consumers
    ) as choices
    order by choice, xid, commit_id
    limit 1
), places as (
    select name, xid, commit_id from consumers
    union all
    select 'publisher', xid, commit_id from published
)
select
    places.name,
    (
        select count(*)
        from (
            select
            from commits
            where (commits.xid, commits.commit_id) > (places.xid, places.commit_id)
            limit $3
        ) as behind
    ) as commits,
    coalesce((
        select extract(epoch from now() - commits.committed_at)::double precision
        from commits
        where (commits.xid, commits.commit_id) > (places.xid, places.commit_id)
        order by commits.xid, commits.commit_id
        limit 1
    ), 0) as seconds
from places
order by places.name

-- name: is_active
-- Whether a process holds the lock of the role $1; see `CommitLog.try_lock`.
select exists(
    select
    from pg_locks
    where locktype = 'advisory' and granted and objsubid = 1
        and database = (select oid from pg_database where datname = current_database())
        and (classid::bigint << 32 | objid::bigint) = hashtextextended('analytics:' || $1, 0)
)
