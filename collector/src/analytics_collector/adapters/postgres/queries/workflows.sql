-- name: create_workflow
insert into workflows (workflow_id, project_id, name, steps, window_seconds)
values ($1, $2, $3, $4::text::jsonb, $5)
returning workflow_id, name, steps::text as steps, window_seconds, created_at

-- name: list_workflows
select workflow_id, name, steps::text as steps, window_seconds, created_at
from workflows
where project_id = $1
order by created_at, workflow_id

-- name: find_workflow
select workflow_id, name, steps::text as steps, window_seconds, created_at
from workflows
where project_id = $1 and workflow_id = $2

-- name: delete_workflow
delete from workflows
where project_id = $1 and workflow_id = $2
returning workflow_id
