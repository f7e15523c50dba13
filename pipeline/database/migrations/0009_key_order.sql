-- What spares a refresh the reading of rows that stay. Whether the keys of a staged part rise, and which of them may repeat, so that a
-- table is settled without a search; and what a declared check counted, so that it is brought up to date by what comes and goes.

alter table etl.checkpoint add column key_order jsonb;
comment on column etl.checkpoint.key_order is 'First and last key of a part whose keys rise, those that may repeat, and how many rows were not staged whole because they give way; empty: they do not rise';

alter table etl.gate_result add column counted numeric;
comment on column etl.gate_result.counted is 'The whole number of rows, or the sum, that a check of a schema file took from the table';
