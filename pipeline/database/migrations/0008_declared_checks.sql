-- What a declared check asked, so that its result still stands for a table that is published again with the same rows.

alter table etl.gate_result add column declared text;
comment on column etl.gate_result.declared is 'A short hash of what the schema file asked (kind, columns, bounds, other table); empty: no check of a schema file';
