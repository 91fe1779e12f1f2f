-- name: create_records
-- A record is a group of events that was acknowledged as one. No id is ever given twice: who
-- removes what it has brought home may be late, and must not remove what came after.
create table if not exists records (
    id integer primary key autoincrement,
    spooled_at real not null,
    events integer not null,
    payload blob not null
)

-- name: create_refused
-- Events that Postgres refuses whatever the time; kept for their operator.
create table if not exists refused (
    id integer primary key autoincrement,
    refused_at real not null,
    events integer not null,
    payload blob not null
)

-- name: create_totals
-- What the tables above hold, so that nobody has to count.
create table if not exists totals (
    only_row integer primary key check (only_row = 1),
    events integer not null,
    bytes integer not null,
    refused integer not null
)

-- name: create_keys
-- The keys that Postgres confirmed last, by their digests.
create table if not exists keys (
    digest blob primary key,
    document blob not null,
    confirmed_at real not null
)

-- name: begin_totals
insert or ignore into totals values (1, 0, 0, 0)

-- name: totals
select events, bytes, refused from totals

-- name: add_totals
update totals set events = events + ?, bytes = bytes + ?, refused = refused + ?

-- name: probe
-- A write that changes nothing, to see that the disk takes it.
update totals set events = events

-- name: add_record
insert into records (spooled_at, events, payload) values (?, ?, ?)

-- name: has_records
select exists (select 1 from records)

-- name: oldest
select id, events, payload from records where id > ? order by id limit 1

-- name: oldest_at
select spooled_at from records order by id limit 1

-- name: sums_until
select coalesce(sum(events), 0), coalesce(sum(length(payload)), 0) from records where id <= ?

-- name: remove_until
delete from records where id <= ?

-- name: add_refused
insert into refused (refused_at, events, payload) values (?, ?, ?)

-- name: keep_key
insert or replace into keys (digest, document, confirmed_at) values (?, ?, ?)

-- name: forget_key
delete from keys where digest = ?

-- name: forget_keys_before
delete from keys where confirmed_at < ?

-- name: kept_keys
select digest, document, confirmed_at from keys
