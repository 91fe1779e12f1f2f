-- API keys: under which pepper each is stored, which key follows it, and how much it is used.

-- `pepper` is the public id of the secret that made `digest`; null until that is noted, at the
-- first use. `replaced_by` is the key that a rotation made.
alter table api_keys
    add column pepper text,
    add column replaced_by bigint references api_keys,
    add column last_used_at timestamptz,
    add column usage_count bigint not null default 0;
create index api_keys_by_project on api_keys (project_id, key_id);

create table key_usage (
    key_id bigint not null references api_keys,
    day date not null,                     -- in UTC
    requests bigint not null,
    events bigint not null,                -- acknowledged, duplicates included
    rejected bigint not null,              -- events
    primary key (key_id, day)
);
