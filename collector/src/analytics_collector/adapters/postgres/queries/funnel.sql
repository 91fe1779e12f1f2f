-- Parts from which `funnel_sql.py` puts a funnel of n steps together. What stands in braces is
-- replaced by other parts of this file, by a whole number, or by a parameter such as $7: nothing
-- that a request says ever becomes part of the text. Meaning: `analytics/funnel.py`.
--
-- One forward pass: v<k> of a row is the latest entry (step 1) from which step k is reached by
-- this row, m<k> the greatest v<k-1> of the rows before it. A later entry has the later deadline,
-- so it can do all that an earlier one can, and a running maximum loses nothing. The frame ends
-- one row before, so an event serves one step only. All levels share one sort.

-- name: person
-- Who an event counts for: the one place to join the resolution of identities. A user and an
-- anonymous visitor of the same id are two persons; null is nobody.
coalesce('u:' || e.user_id, 'a:' || e.anonymous_id) collate "C"

-- name: matched
-- The events of the steps' names in the range, and which steps each satisfies. Time in whole
-- milliseconds: what happens in the same one has no order.
matched as (
    select
        {person} as person,
        date_trunc('milliseconds', e."timestamp") as t,
        {steps}
    from events as e
    where e.project_id = $1 and e.name = any($2::text[]) {range}
        and (e.user_id is not null or e.anonymous_id is not null)
)

-- name: step
((e.name = {event} {conditions}) is true) as s{k}

-- name: since
and e."timestamp" >= {start}

-- name: until
-- Later steps may lie behind the end of the range, by as much as the window.
and e."timestamp" < {end} + {window}

-- name: window
-- Elapsed seconds: an interval of "1 day" would be 23 or 25 hours when clocks change.
make_interval(secs => {seconds}::float8)

-- name: ranked
-- low, high: the first and the last step that the event satisfies.
ranked as (
    select *, {low} as low, {high} as high
    from matched
    where {any_step}
)

-- name: tied
-- Persons with events in the same millisecond one of which satisfies several steps. No order of
-- rows is right for all of them, so they are left to `settle`, which tries every order.
tied as (
    select person
    from ranked
    group by person, t
    having count(*) > 1 and bool_or(low <> high)
)

-- name: untied
where person not in (select person from tied)

-- name: level_1
level_1 as (
    select *, case when s1 {entry} then t end as v1
    from ranked
    {untied}
)

-- name: entry
and t < {end}

-- name: level
reach_{k} as (
    select *, max(v{before}) over in_order as m{k}
    from level_{before}
    window in_order as (
        partition by person order by t, low rows between unbounded preceding and 1 preceding
    )
),
level_{k} as (
    select *, case when s{k} and t <= m{k} + {window} then m{k} end as v{k}
    from reach_{k}
)

-- name: depths
-- How many persons came as far as each step, as one array.
with {ctes},
depths as (
    select person, max({depth}) as depth
    from level_{n}
    group by person
)
select array[{counts}]
from depths

-- name: count
count(*) filter (where depth >= {k})

-- name: ties
-- The events of the persons in `tied`: for each person in turn, moment by moment, how many events
-- satisfied which steps (bit k - 1 is step k; more than n of a kind can't matter), and whether
-- the moment lies before the end of the range.
with {ctes}
select person, t, ({mask}) as mask, least(count(*), {n})::int as events, ({in_range}) as may_enter
from ranked
where person in (select person from tied)
group by 1, 2, 3
order by 1, 2

-- name: canonical
-- A property as text, numbers in their shortest form: 1, 1.0 and "1" are the same. Null when it
-- is missing or null.
(case when jsonb_typeof(e.properties -> {property}::text) = 'number'
    then trim_scale((e.properties ->> {property}::text)::numeric)::text
    else e.properties ->> {property}::text end)

-- name: numeric
-- A property as number, if it is one or a text that looks like one.
(case jsonb_typeof(e.properties -> {property}::text)
    when 'number' then (e.properties ->> {property}::text)::numeric
    when 'string' then case
        when length(e.properties ->> {property}::text) <= 400
            and (e.properties ->> {property}::text)
                ~ '^[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]{{1,3}})?$'
        then (e.properties ->> {property}::text)::numeric end
    end)

-- name: eq
and {canonical} = {value}::text

-- name: neq
and {canonical} is distinct from {value}::text

-- name: in
and {canonical} = any({value}::text[])

-- name: contains
and position(lower({value}::text) in lower({canonical})) > 0

-- name: gt
and {numeric} > {value}::numeric

-- name: gte
and {numeric} >= {value}::numeric

-- name: lt
and {numeric} < {value}::numeric

-- name: lte
and {numeric} <= {value}::numeric

-- name: is_set
and (e.properties ->> {property}::text) is not null

-- name: is_not_set
and (e.properties ->> {property}::text) is null
