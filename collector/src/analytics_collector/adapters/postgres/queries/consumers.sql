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
