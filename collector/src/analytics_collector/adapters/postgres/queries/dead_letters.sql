-- name: add_letters
insert into dead_letters (
    project_id, stage, reason, field, name, key_id, message_id, received_at, sent_at, payload,
    is_whole
)
select * from unnest(
    $1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::text[],
    $8::timestamptz[], $9::text[], $10::text[], $11::boolean[]
)

-- name: bound_projects
-- Of each of the projects $1 (null: of all that have letters), remove all but the newest $2: of the
-- refused events, and of those that consumers could not apply.
with recursive projects (project_id) as (
    select min(project_id) from dead_letters where $1::bigint[] is null
    union all
    select (select min(project_id) from dead_letters where project_id > projects.project_id)
    from projects
    where projects.project_id is not null
), parts as (
    select project_id, is_acknowledged
    from (
        select project_id from projects where project_id is not null
        union all
        select unnest($1::bigint[])
    ) as wanted, (values (false), (true)) as kinds (is_acknowledged)
)
delete from dead_letters
using parts, lateral (
    select letter_id
    from dead_letters as kept
    where kept.project_id = parts.project_id and kept.is_acknowledged = parts.is_acknowledged
    order by letter_id desc
    limit 1 offset $2
) as newest_too_many
where dead_letters.project_id = parts.project_id
    and dead_letters.is_acknowledged = parts.is_acknowledged
    and dead_letters.letter_id <= newest_too_many.letter_id

-- name: expire_letters
-- Remove up to $2 letters that are older than $1.
delete from dead_letters
where letter_id in (
    select letter_id from dead_letters where noted_at < now() - $1::interval
    order by noted_at
    limit $2
)

-- name: select_letters
-- Up to $10 letters of the project $1 (null: of any), the newest first: with the reason $2, the
-- stage $3, the name $4, received from $5 to before $6, behind the letter $7, one of $8 (each
-- null: any), without their payload unless $9.
select letter_id, project_id, stage, reason, field, name, key_id, message_id, received_at, sent_at,
    is_whole, revision, attempts, noted_at, last_tried_at,
    case when $9::boolean then payload end as payload
from dead_letters
where ($1::bigint is null or project_id = $1)
    and ($2::text is null or reason = $2)
    and ($3::text is null or stage = $3)
    and ($4::text is null or name = $4)
    and ($5::timestamptz is null or received_at >= $5)
    and ($6::timestamptz is null or received_at < $6)
    and ($7::bigint is null or letter_id < $7)
    and ($8::bigint[] is null or letter_id = any($8))
order by letter_id desc
limit $10

-- name: select_letters_in_order
-- As `select_letters`, the oldest first: those behind $7 are younger.
select letter_id, project_id, stage, reason, field, name, key_id, message_id, received_at, sent_at,
    is_whole, revision, attempts, noted_at, last_tried_at,
    case when $9::boolean then payload end as payload
from dead_letters
where ($1::bigint is null or project_id = $1)
    and ($2::text is null or reason = $2)
    and ($3::text is null or stage = $3)
    and ($4::text is null or name = $4)
    and ($5::timestamptz is null or received_at >= $5)
    and ($6::timestamptz is null or received_at < $6)
    and ($7::bigint is null or letter_id > $7)
    and ($8::bigint[] is null or letter_id = any($8))
order by letter_id
limit $10

-- name: edit_letter
-- Give the letter $1 (of the project $2 unless that is null) another payload, which is a whole
-- event, and its name and message id.
update dead_letters
set payload = $3, name = $4, message_id = $5, is_whole = true,
    revision = revision + 1
where letter_id = $1 and ($2::bigint is null or project_id = $2) and not is_acknowledged
returning letter_id

-- name: remove_letter
-- The letter $1 (of the project $2 unless that is null), if it is still at revision $3 (null: any).
delete from dead_letters
where letter_id = $1 and ($2::bigint is null or project_id = $2)
    and ($3::integer is null or revision = $3)
returning payload

-- name: purge_letters
-- The letters of a project that a filter lets through, as in `select_letters`.
delete from dead_letters
where ($1::bigint is null or project_id = $1)
    and ($2::text is null or reason = $2)
    and ($3::text is null or stage = $3)
    and ($4::text is null or name = $4)
    and ($5::timestamptz is null or received_at >= $5)
    and ($6::timestamptz is null or received_at < $6)
    and ($7::bigint is null or letter_id < $7)
    and ($8::bigint[] is null or letter_id = any($8))

-- name: letter_failed
-- Note that a replay of the letter $1 at revision $2 failed, where and why.
update dead_letters
set attempts = attempts + 1, last_tried_at = now(), stage = $3, reason = $4, field = $5
where letter_id = $1 and revision = $2

-- name: known_message
select exists(select from events where project_id = $1 and message_id = $2::uuid)

-- name: project_settings
select settings::text as settings from projects where project_id = $1
