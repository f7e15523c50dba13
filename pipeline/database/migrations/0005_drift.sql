-- Drift: what each import's tables are like, column by column, so that a release is compared with the one before it without a scan.
-- What a person accepted: the checks that had failed, and no others.

alter table etl.checkpoint add column figures jsonb;
comment on column etl.checkpoint.figures is 'nulls, zeros, sums and values of the part''s rows; empty: it was transformed before they were taken';

create table etl.table_figure (
    import_id    bigint not null references etl.import,
    table_name   text not null,
    column_name  text not null,
    rows         bigint not null,
    nulls        bigint not null,
    zeros        bigint,
    total        numeric,
    codes        jsonb,
    declared     text not null,
    primary key (import_id, table_name, column_name)
);
comment on table etl.table_figure is 'What each column of a table is like as an import has it: taken before the gate, kept with the import. Of rows that gave way to others of their key one in a thousand may be counted with them';
comment on column etl.table_figure.zeros is 'Rows whose number is 0; empty: no numbers, or personal';
comment on column etl.table_figure.total is 'The sum of its numbers';
comment on column etl.table_figure.codes is 'How many rows have each value, of a column of at most 64 different short ones that is not personal';
comment on column etl.table_figure.declared is 'A short hash of the column''s declaration in the schema file';

alter table etl.gate_result
    add column figure numeric,
    add column bound  numeric,
    drop constraint gate_result_severity_check,
    add constraint gate_result_severity_check check (severity in ('note', 'warn', 'error'));
comment on column etl.gate_result.kind is 'built_in; drift: against the import before; or the kind of a check that the schema file declares: rows, fill, unique, reference, sum';
comment on column etl.gate_result.severity is 'error: it holds the release when it fails; warn: it is told; note: it cannot fail, and is worth telling';
comment on column etl.gate_result.figure is 'What was seen as one number, where it is one';
comment on column etl.gate_result.bound is 'What that number was held to';

alter table etl.decision add column checks jsonb;
comment on column etl.decision.checks is 'What an acceptance covers: [table, kind, check] of each check that held the import then. Empty: any';
