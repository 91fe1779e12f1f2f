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
-- bear the id a second time. Until a worker has numbered them anew they are out of place: those
-- whose number is still to come, and with them all that came in the same transaction.
with adopted as (
    select (2 * count(*) + 1)::text::xid8 as last_xid from consumers
)
select
    xid,
    commit_id,
    xid <= last_xid
    or xid::text::numeric % 4294967296 = commits.xmin::text::numeric
    or (
        xid < pg_snapshot_xmax(pg_current_snapshot())
        and not exists (
            select from commits as restored
            where restored.xmin = commits.xmin
                and restored.xid::text::numeric % 4294967296 > restored.xmin::text::numeric
        )
    ) as is_in_place
from commits, adopted
where commit_id = $2 and (xid = $1::xid8 or xid <= last_xid)
