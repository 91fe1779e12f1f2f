-- name: sessions_near
-- For each stream the first and the last of its events in a range of time that the collector
-- attached a session to: when that session began, and when the event was. A stream is an
-- `anonymousId`, or a `userId` that came without one; of the events of a user few are looked at.
select wanted.position - 1 as position, near.start, near.at
from unnest($2::boolean[], $3::text[], $4::timestamptz[], $5::timestamptz[])
    with ordinality as wanted (is_anonymous, id, earliest, latest, position)
cross join lateral (
    (
        select enrichment #>> '{session,start}' as start, "timestamp" as at
        from events
        where wanted.is_anonymous and project_id = $1 and anonymous_id = wanted.id
            and enrichment ? 'session'
            and "timestamp" between wanted.earliest and wanted.latest
        order by "timestamp" desc
        limit 1
    )
    union all
    (
        select enrichment #>> '{session,start}', "timestamp"
        from events
        where wanted.is_anonymous and project_id = $1 and anonymous_id = wanted.id
            and enrichment ? 'session'
            and "timestamp" between wanted.earliest and wanted.latest
        order by "timestamp"
        limit 1
    )
    union all
    (
        select enrichment #>> '{session,start}', at
        from (
            select enrichment, anonymous_id, "timestamp" as at
            from events
            where not wanted.is_anonymous and project_id = $1 and user_id = wanted.id
                and "timestamp" between wanted.earliest and wanted.latest
            order by "timestamp" desc
            limit 100
        ) as latest_of_user
        where anonymous_id is null and enrichment ? 'session'
    )
) as near
