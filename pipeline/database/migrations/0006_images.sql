-- Before-images are the texts of a row's columns, by position: in a tenth of the time of a JSON document, and half as large.
-- The columns' names are kept once for each import and table. History that is there already is rewritten.

create table etl.image_columns (
    import_id    bigint not null references etl.import,
    table_name   text not null,
    columns      text[] not null,
    primary key (import_id, table_name)
);
comment on table etl.image_columns is 'The columns of the before-images that an import has left in the history of a table, in their order';

create function etl.before_image(import_id bigint, table_name text, image text[]) returns jsonb language sql stable
return (select jsonb_object(c.columns, $3) from etl.image_columns c where c.import_id = $1 and c.table_name = $2);
comment on function etl.before_image is 'A row of the history, to be read by name: etl.before_image(import_id, ''real_acct'', before_image) ->> ''tot_mkt_val''';

alter table etl.staged_table add column changed_columns jsonb;
comment on column etl.staged_table.changed_columns is 'In how many rows each column differs from what is live, where the gate has counted them';

do $$
declare
    old      record;
    live     regclass;
    one      bigint;
    fields   text[];
    texts    text;
    checked  name;
begin
    perform set_config('datestyle', 'ISO, MDY', true), set_config('intervalstyle', 'postgres', true),
            set_config('extra_float_digits', '1', true), set_config('bytea_output', 'hex', true);
    for old in
        select c.source, c.table_name, h.oid::regclass as history
          from (select distinct l.source, l.table_name, l.source || '_' || l.table_name as name from etl.live_column l) c
          join pg_class h on h.relnamespace = 'history'::regnamespace and h.relname =
               case when octet_length(c.name) > 63 then left(c.name, 54) || '_' || left(encode(sha256(convert_to(c.name, 'UTF8')), 'hex'), 8)
                    else c.name end
          join pg_attribute a on a.attrelid = h.oid and a.attname = 'before_image' and a.atttypid = 'jsonb'::regtype
         order by 1, 2
    loop
        live := to_regclass(format('%I.%I', old.source, old.table_name));
        execute format('alter table %s rename column before_image to former_image', old.history);
        execute format('alter table %s add column before_image text[]', old.history);
        -- It is made anew below.
        for checked in select conname from pg_constraint where conrelid = old.history and contype = 'c' and conkey @> array[
            (select attnum from pg_attribute where attrelid = old.history and attname = 'former_image')] loop
            execute format('alter table %s drop constraint %I', old.history, checked);
        end loop;
        for one in execute format('select distinct import_id from %s where former_image is not null', old.history) loop
            -- As the live table has them: through its types the texts are what a publish writes. Columns that it has no more are not lost.
            execute format(
                'select array_agg(k.name order by a.attnum nulls last, k.name)
                   from (select distinct jsonb_object_keys(former_image) as name from %s where import_id = $1) k
                   left join pg_attribute a on a.attrelid = $2 and a.attname = k.name and a.attnum > 0 and not a.attisdropped
                  where a.attgenerated is null or a.attgenerated = ''''', old.history) into fields using one, live;
            select string_agg(
                       case when a.attname is null then format('h.former_image ->> %L', f.name) else format('b.%I::text', f.name) end,
                       ', ' order by f.place)
              into texts
              from unnest(fields) with ordinality f(name, place)
              left join pg_attribute a on a.attrelid = live and a.attname = f.name and not a.attisdropped;
            execute format('insert into etl.image_columns (import_id, table_name, columns) values ($1, $2, $3)') using one, old.table_name, fields;
            if live is null then
                execute format('update %s h set before_image = array[%s], former_image = null
                                 where import_id = $1 and former_image is not null', old.history, texts) using one;
            else
                execute format('update %s h set before_image = (select array[%s] from jsonb_populate_record(null::%s, h.former_image) b),
                                       former_image = null
                                 where import_id = $1 and former_image is not null', old.history, texts, live) using one;
            end if;
        end loop;
        execute format('alter table %s drop column former_image', old.history);
        execute format('alter table %s add check ((operation = ''I'') = (before_image is null))', old.history);
    end loop;
end
$$;
