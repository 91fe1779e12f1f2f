-- How many events each project has stored in each calendar month, in UTC: what its quota goes by.

create table monthly_usage (
    project_id bigint not null,
    month date not null,                   -- its first day
    event_count bigint not null,
    primary key (project_id, month)
);
