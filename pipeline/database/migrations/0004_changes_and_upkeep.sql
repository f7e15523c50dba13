-- What an import changed, by column; how long row history is kept; maintenance that a publish leaves behind; imports of some tables only.

alter table etl.import
    add column history_dropped_at timestamptz,
    add column only_tables text[] generated always as
        (case when strpos(recipe, '+') > 0 then string_to_array(split_part(recipe, '+', 2), ',') end) stored;
comment on column etl.import.history_dropped_at is 'When retention removed the row history of this import: since then it cannot be taken back';
comment on column etl.import.only_tables is 'The tables that a partial import is about; every other one was carried over as it was live. Empty: all tables';

create table etl.column_change (
    import_id    bigint not null references etl.import,
    table_name   text not null,
    column_name  text not null,
    updated      bigint not null,
    primary key (import_id, table_name, column_name)
);
comment on table etl.column_change is 'In how many updated rows of a table an import gave a column another value; kept when the row history is not';

create view etl.change as
select i.import_id, i.source, i.tax_year, i.state, t.table_name, null::text as column_name, t.inserted, t.updated, t.deleted
  from etl.import i join etl.import_table t using (import_id)
union all
select i.import_id, i.source, i.tax_year, i.state, c.table_name, c.column_name, null, c.updated, null
  from etl.import i join etl.column_change c using (import_id);
comment on view etl.change is 'What each import changed: a row a table (column_name empty) with the rows inserted, updated and deleted, and a row a column with the updated rows in which it differs';

create table etl.owed (
    source      text not null,
    tax_year    integer not null,
    table_name  text not null,
    import_id   bigint not null references etl.import,
    rows        bigint not null,
    owed_since  timestamptz not null default clock_timestamp(),
    primary key (source, tax_year, table_name)
);
comment on table etl.owed is 'Tables of a tax year that a publish or rollback has written and that VACUUM and ANALYZE have not seen since';
comment on column etl.owed.rows is 'Rows written that ANALYZE has not seen';
