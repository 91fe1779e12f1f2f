-- What projects set for themselves, what keys allow, and what the collector works out of an event.

-- The form is spec/schema/project-settings.json; what is left out is as that says.
alter table projects add column settings jsonb not null default '{}';

-- Origins of web pages that may use the key from a browser; null is any.
alter table api_keys add column allowed_origins text[];

alter table events add column enrichment jsonb;
