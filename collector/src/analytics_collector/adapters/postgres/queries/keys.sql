-- name: find_key
select key_id, project_id, scopes, expires_at, allowed_origins, settings::text as settings
from api_keys
join projects using (project_id)
where digest = $1 and revoked_at is null and (expires_at is null or expires_at > now())

-- name: create_project
-- Make the project $1 unless there is one of that name.
insert into projects (name) values ($1) on conflict (name) do nothing returning project_id

-- name: find_project
select project_id from projects where name = $1

-- name: list_projects
select project_id, name, created_at from projects order by project_id

-- name: create_key
insert into api_keys (project_id, name, digest, prefix, scopes, expires_at)
values ($1, $2, $3, $4, $5, $6)
returning key_id, created_at

-- name: list_keys
select key_id, projects.name as project, api_keys.name, prefix, scopes, api_keys.created_at,
    expires_at, revoked_at
from api_keys
join projects using (project_id)
where $1::text is null or projects.name = $1
order by key_id

-- name: revoke_key
-- Revoke the key $1, once; the time of the first revocation stays.
update api_keys set revoked_at = coalesce(revoked_at, now()) where key_id = $1
returning key_id, revoked_at
