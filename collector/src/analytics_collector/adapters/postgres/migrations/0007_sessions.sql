-- Finds the sessions of a visitor again when Redis has lost them. Only events that the collector
-- attached a session to are in it: the others pay nothing for it. Those of users are found by
-- `events_by_user`.
create index events_by_visitor on events (project_id, anonymous_id, "timestamp")
where anonymous_id is not null and enrichment ? 'session';
