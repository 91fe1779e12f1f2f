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
select exists(select from commits where xid >= pg_snapshot_xmax(pg_current_snapshot()))

-- name: renumber_commits
-- In the order of their ids, before everything that this cluster commits.
update commits set xid = '0'

-- name: renumber_consumers
update consumers set xid = '0'
