-- The first schema: projects and their keys, events, users, what consumers keep.

create table projects (
    project_id bigint generated always as identity primary key,
    name text not null unique check (name <> ''),
    created_at timestamptz not null default now()
);

-- A key itself is stored nowhere: `digest` is HMAC-SHA256 of it under the server's secret.
create table api_keys (
    key_id bigint generated always as identity primary key,
    project_id bigint not null references projects,
    name text not null default '',
    digest bytea not null unique,
    prefix text not null,
    scopes text[] not null check (scopes <@ array['ingest', 'read', 'admin'] and scopes <> '{}'),
    created_at timestamptz not null default now(),
    expires_at timestamptz,
    revoked_at timestamptz
);

-- One row a group commit. Readers that follow the log go by (xid, commit_id) below
-- pg_snapshot_xmin(pg_current_snapshot()): by commit_id alone they would overtake a
-- transaction that took its id early and commits late.
create sequence commit_ids;
create table commits (
    commit_id bigint primary key,
    xid xid8 not null,
    event_count integer not null,
    committed_at timestamptz not null default now()
);
create unique index commits_in_order on commits (xid, commit_id);

create sequence event_seqs;
create table events (
    seq bigint not null default nextval('event_seqs'),
    commit_id bigint not null,
    project_id bigint not null,
    message_id uuid not null,
    "timestamp" timestamptz not null,
    received_at timestamptz not null,
    client_timestamp timestamptz,          -- set when "timestamp" is not what the client sent
    timestamp_clamped boolean not null,    -- the client's was more than a day ahead
    type text not null,
    name text not null,
    user_id text,
    anonymous_id text,
    session_id text,
    group_id text,
    previous_id text,
    properties jsonb not null,
    traits jsonb,
    context jsonb not null,
    extra jsonb                            -- members of the event that the specification does not know
);
create unique index events_once on events (project_id, message_id);
create index events_by_name on events (project_id, name, "timestamp");
create index events_by_user on events (project_id, user_id, "timestamp");
-- A B-tree, not BRIN: commit_id only grows, so inserts touch one hot leaf; BRIN leaves the newest
-- pages, which the publisher is after, unsummarised until the next vacuum.
create index events_by_commit on events (commit_id);

-- The present traits of each identified user, and when each was said.
create table users (
    project_id bigint not null,
    user_id text not null,
    traits jsonb not null,
    trait_times jsonb not null,
    first_identified_at timestamptz not null default now(),
    primary key (project_id, user_id)
);

create table workflows (
    workflow_id text primary key,
    project_id bigint not null references projects,
    name text not null,
    steps jsonb not null,
    window_seconds bigint not null check (window_seconds > 0),
    created_at timestamptz not null default now(),
    unique (project_id, name)
);

-- How far each consumer of the log has come; written in the transaction of its effect.
create table consumers (
    name text primary key,
    xid xid8 not null default '0',
    commit_id bigint not null default 0
);

create table daily_counts (
    project_id bigint not null,
    day date not null,                     -- of the event's timestamp, in UTC
    name text not null,
    event_count bigint not null,
    primary key (project_id, day, name)
);
insert into consumers (name) values ('daily_counts');
