-- Event schemas: what a project says of its events, every version of it, and what did not fit.

-- Grows with every change, so that processes see that there was one.
create table event_plans (
    project_id bigint primary key references projects,
    revision bigint not null
);

create table event_schemas (
    project_id bigint not null references projects,
    name text not null,
    version integer not null,              -- the one that holds
    mode text check (mode in ('off', 'warn', 'reject')),   -- null: as the project's settings say
    changed_at timestamptz not null default now(),
    removed_at timestamptz,                -- its versions stay, and their numbers are never reused
    primary key (project_id, name)
);

create table event_schema_versions (
    project_id bigint not null,
    name text not null,
    version integer not null check (version > 0),
    document json not null,                -- json, not jsonb: it is given back as it was written
    digest bytea not null,
    size_bytes integer not null,
    patterns integer not null,
    created_at timestamptz not null default now(),
    primary key (project_id, name, version),
    foreign key (project_id, name) references event_schemas deferrable initially deferred
);

-- Events that did not fit the version of a schema; version 0: that no schema is known for.
create table schema_findings (
    project_id bigint not null references projects,
    name text not null,
    version integer not null,
    event_count bigint not null,
    rejected_count bigint not null,
    first_seen_at timestamptz not null,
    last_seen_at timestamptz not null,
    primary key (project_id, name, version)
);

-- What was wrong with them: where the schema says so, and with which word. Never a value.
create table schema_faults (
    project_id bigint not null,
    name text not null,
    version integer not null,
    place text not null,
    keyword text not null,
    event_count bigint not null,
    primary key (project_id, name, version, place, keyword),
    foreign key (project_id, name, version) references schema_findings on delete cascade
);
