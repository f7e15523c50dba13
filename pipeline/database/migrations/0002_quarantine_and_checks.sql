-- The quarantine: how many rows each rule refused is always kept, the rows themselves up to a cap a rule. The gate: what a check is,
-- and whether it holds the release. Tables: rows that gave way to another row of their key.

alter table etl.quarantine
    add column byte_offset    bigint,
    add column member_sha256  text,
    add column raw_base64     text,
    add column rules          text[];
-- Rows of before know the columns that refused them, and not the rules.
update etl.quarantine set rules = array(select jsonb_object_keys(reasons) order by 1);
alter table etl.quarantine alter column rules set not null;
create index on etl.quarantine (import_id, table_name, line);
comment on table etl.quarantine is 'Rows refused, of each rule the first of the table: line and byte offset in the member, raw text, rules, reasons by column (* for the line as a whole)';
comment on column etl.quarantine.raw_base64 is 'The bytes of the line, where raw does not give them back exactly';
comment on column etl.quarantine.rules is 'The rules that the row breaks, as column:rule';

create table etl.quarantine_part (
    import_id    bigint not null references etl.import,
    table_name   text not null,
    part         integer not null,
    quarantined  bigint not null,
    refused      jsonb not null,
    primary key (import_id, table_name, part)
);
comment on table etl.quarantine_part is 'How many rows of a part are refused, and by column:rule; a row that breaks two rules counts under both. Part -1: found when all parts were there';
insert into etl.quarantine_part (import_id, table_name, part, quarantined, refused)
select q.import_id, q.table_name, q.part, count(*),
       (select jsonb_object_agg(rule, rows) from (
           select rule, count(*) as rows from etl.quarantine k, unnest(k.rules) rule
            where (k.import_id, k.table_name, k.part) = (q.import_id, q.table_name, q.part) group by rule) counted)
  from etl.quarantine q group by q.import_id, q.table_name, q.part having bool_or(cardinality(q.rules) > 0);

alter table etl.checkpoint add column changed jsonb not null default '{}';
alter table etl.staged_table
    add column superseded  bigint not null default 0,
    add column changed     jsonb not null default '{}',
    add column refused     jsonb not null default '{}';
alter table etl.import_table
    add column superseded  bigint not null default 0,
    add column changed     jsonb not null default '{}',
    add column refused     jsonb not null default '{}';
comment on column etl.import_table.changed is 'Values that a declared rule altered (truncated, control_character), counted by column:rule';
comment on column etl.import_table.superseded is 'Those of the duplicate rows that have other values than the row of their key that stands (on_conflict first and last)';
comment on column etl.import_table.refused is 'Quarantined rows counted by column:rule; a row that breaks two rules counts under both';

alter table etl.gate_result
    add column kind      text not null default 'built_in',
    add column severity  text not null default 'error' check (severity in ('warn', 'error')),
    drop constraint gate_result_pkey,
    add primary key (import_id, table_name, kind, check_name);
comment on column etl.gate_result.kind is 'built_in, or the kind of a check that the schema file declares: rows, fill, unique, reference, sum';
comment on column etl.gate_result.severity is 'error: it holds the release when it fails; warn: it is told';
