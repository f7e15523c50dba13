-- The form of the staging tables that an import's parts were put into: a program that knows another one stages them anew.

alter table etl.import add column staging_revision integer not null default 1;
comment on column etl.import.staging_revision is 'The form of its staging tables; another revision of the program does not go on with them';
comment on column etl.import.message is 'Why it was refused, rolled back, or given up before it was published';
