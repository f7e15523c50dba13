-- Whose session holds a source, so that its owner can be named and its death seen also by another role.

alter table etl.writer add column backend_pid integer;
alter table etl.writer add column backend_start timestamptz;
comment on column etl.writer.backend_pid is 'The PostgreSQL session that holds the source''s lock, with backend_start: a number is given out again';

alter table etl.run add column notes text[] not null default '{}';
comment on column etl.run.notes is 'What the checks before the run found worth telling: missing extensions, views, triggers and foreign keys on live tables';
