-- Events that were given up on: refused by a stage, or impossible for a consumer to apply.

create table dead_letters (
    letter_id bigint generated always as identity primary key,
    project_id bigint not null,
    stage text not null,                   -- decode, validate, schema, store, consumer:NAME
    reason text not null,                  -- a code of spec/errors.json, or what a consumer raised
    field text,                            -- the member of the event at fault, if one is
    name text,                             -- of the event, as far as it had one
    key_id bigint,
    message_id text,                       -- as the client sent it, or as it was given one
    received_at timestamptz not null,
    sent_at text,                          -- the clock of the client, as it was sent with the batch
    -- JSON as text: jsonb can hold neither NUL nor lone surrogates. Whole if it is all of the
    -- event; otherwise a JSON string with its beginning, which can't be replayed.
    payload text not null,
    is_whole boolean not null,
    revision integer not null default 0,   -- rises with each edit
    attempts integer not null default 0,   -- replays that failed
    noted_at timestamptz not null default now(),
    last_tried_at timestamptz,
    -- What consumers could not apply was acknowledged to a sender: refused events, of which anybody
    -- can send any number, do not push it out.
    is_acknowledged boolean not null generated always as (stage like 'consumer:%') stored
);
create index dead_letters_by_project on dead_letters (project_id, letter_id);
create index dead_letters_to_bound on dead_letters (project_id, is_acknowledged, letter_id);
create index dead_letters_by_age on dead_letters (noted_at);
