-- The ledger: what ran, what was offered, what was imported, what was refused.
--
-- Markers that speak for staged rows (checkpoint, staged_table, checked) are UNLOGGED like the staging tables beside them:
-- a crash of the server empties both together, so that no marker outlives its rows.

create schema if not exists etl_staging;
create schema if not exists history;

create table etl.run (
    run_id       bigint generated always as identity primary key,
    command      text not null,
    profile      text not null,
    as_of        timestamptz not null,
    host         text not null,
    pid          integer not null,
    started_at   timestamptz not null default clock_timestamp(),
    finished_at  timestamptz,
    outcome      text,
    exit_code    integer,
    message      text
);
comment on table etl.run is 'One row a run of hcad-pipeline run; finished_at is empty while it runs, and stays so if it was killed until the next run marks it';

create table etl.writer (
    source    text primary key,
    token     bigint not null default 0,
    run_id    bigint references etl.run,
    taken_at  timestamptz
);
comment on table etl.writer is 'The fencing token of each source: every run that takes the source raises it, and an older run may not write any more';

create table etl.task_attempt (
    attempt_id   bigint generated always as identity primary key,
    run_id       bigint references etl.run,
    task_id      text not null,
    family       text not null,
    parameters   jsonb not null,
    pid          integer not null,
    started_at   timestamptz not null default clock_timestamp(),
    finished_at  timestamptz,
    outcome      text not null default 'running' check (outcome in ('running', 'waiting', 'done', 'failed', 'killed', 'broken')),
    error_code   text,
    exit_code    integer,
    message      text
);
create index on etl.task_attempt (run_id, outcome);
create index on etl.task_attempt (task_id, outcome);
comment on table etl.task_attempt is 'One row each time Luigi starts a task; outcome waiting: it asked for other tasks first and will be started again';

create table etl.release (
    source         text not null,
    tax_year       integer not null,
    release        text not null,
    profile        text not null,
    archives       jsonb not null,
    first_seen_at  timestamptz not null default clock_timestamp(),
    last_seen_at   timestamptz not null default clock_timestamp(),
    primary key (source, tax_year, release)
);
comment on table etl.release is 'What a source offered for a tax year: the fingerprints of its archives, and a short hash of those';

create table etl.import (
    import_id       bigint generated always as identity primary key,
    source          text not null,
    tax_year        integer not null,
    release         text not null,
    recipe          text not null,
    profile         text not null,
    state           text not null default 'staging'
                    check (state in ('staging', 'refused', 'published', 'superseded', 'rolled_back')),
    base_import_id  bigint references etl.import,
    opened_at       timestamptz not null default clock_timestamp(),
    published_at    timestamptz,
    closed_at       timestamptz,
    error_code      text,
    message         text
);
create unique index import_one_current on etl.import (source, tax_year) where state = 'published';
create unique index import_one_staging on etl.import (source, tax_year) where state = 'staging';
create index on etl.import (source, tax_year, release, recipe, import_id);
comment on table etl.import is 'One release with one recipe on its way into the database; per source and tax year exactly one is published, that is current';
comment on column etl.import.base_import_id is 'The import that was current when staging began: what was staged was compared with it, and it is what a rollback restores';

create table etl.import_table (
    import_id      bigint not null references etl.import,
    table_name     text not null,
    disposition    text not null check (disposition in ('staged', 'unchanged', 'carried_over')),
    member_sha256  text,
    recipe         text,
    parts          integer not null,
    rows_read      bigint not null,
    rows_loaded    bigint not null,
    quarantined    bigint not null,
    duplicate      bigint not null,
    filtered       bigint not null,
    inserted       bigint not null,
    updated        bigint not null,
    deleted        bigint not null,
    nulled         jsonb not null,
    seconds        double precision not null,
    primary key (import_id, table_name),
    constraint every_row_accounted_for check (rows_read = rows_loaded + quarantined + duplicate + filtered)
);
comment on table etl.import_table is 'What a published import made of each table; rows_read = rows_loaded + quarantined + duplicate + filtered';
comment on column etl.import_table.nulled is 'Values that became NULL by a declared rule, counted by column:rule';

create table etl.live_column (
    source       text not null,
    table_name   text not null,
    column_name  text not null,
    primary key (source, table_name, column_name)
);
comment on table etl.live_column is 'The columns of live tables that the pipeline made; others are the user''s own';

create table etl.gate_result (
    import_id   bigint not null references etl.import,
    check_name  text not null,
    table_name  text not null,
    passed      boolean not null,
    seen        text not null,
    expected    text not null,
    checked_at  timestamptz not null default clock_timestamp(),
    primary key (import_id, check_name, table_name)
);

create table etl.decision (
    decision_id  bigint generated always as identity primary key,
    import_id    bigint not null references etl.import,
    action       text not null check (action in ('accept', 'rollback')),
    reason       text not null,
    decided_by   text not null,
    decided_at   timestamptz not null default clock_timestamp()
);
comment on table etl.decision is 'What a person decided about an import, and why';

create table etl.quarantine (
    quarantine_id  bigint generated always as identity primary key,
    import_id      bigint not null references etl.import,
    table_name     text not null,
    part           integer not null,
    line           bigint not null,
    raw            text not null,
    reasons        jsonb not null,
    refused_at     timestamptz not null default clock_timestamp()
);
create index on etl.quarantine (import_id, table_name, part);
comment on table etl.quarantine is 'Rows refused: line number in the member, raw text, reasons by column (* for the line as a whole)';

create unlogged table etl.checkpoint (
    import_id      bigint not null,
    table_name     text not null,
    part           integer not null,
    member_sha256  text not null,
    recipe         text not null,
    cut            text not null,
    rows_read      bigint not null,
    rows_staged    bigint not null,
    quarantined    bigint not null,
    duplicate      bigint not null,
    filtered       bigint not null,
    nulled         jsonb not null,
    seconds        double precision not null,
    staged_at      timestamptz not null default clock_timestamp(),
    primary key (import_id, table_name, part)
);
comment on table etl.checkpoint is 'A part is staged; committed with the COPY that it speaks for';

create unlogged table etl.staged_table (
    import_id      bigint not null,
    table_name     text not null,
    disposition    text not null,
    member_sha256  text,
    recipe         text,
    parts          integer not null,
    rows_read      bigint not null,
    rows_loaded    bigint not null,
    quarantined    bigint not null,
    conflicting    bigint not null,
    duplicate      bigint not null,
    filtered       bigint not null,
    nulled         jsonb not null,
    seconds        double precision not null,
    primary key (import_id, table_name)
);
comment on table etl.staged_table is 'All parts of a table are staged and its repeated keys are settled';

create unlogged table etl.checked (
    import_id  bigint primary key,
    outcome    text not null check (outcome in ('passed', 'accepted'))
);
comment on table etl.checked is 'The gate let this staging through';
