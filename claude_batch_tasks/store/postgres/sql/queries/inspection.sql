-- name: describe_server
-- The bytes of the schema, the connections in use and the most there may be, and the time.
SELECT
  coalesce((
    SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = %(schema)s AND c.relkind = 'r'
  ), 0)::bigint,
  (SELECT sum(numbackends) FROM pg_stat_database)::int,
  current_setting('max_connections')::int,
  extract(epoch FROM clock_timestamp())::double precision;

-- name: is_read_only
SELECT pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on';

-- name: unsafe_settings
SELECT name, setting FROM pg_settings
WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit') AND setting = 'off' ORDER BY name;

-- name: tables_without_vacuum
-- All, if the server vacuums none; else those of the schema for which it is switched off.
SELECT CASE
  WHEN current_setting('autovacuum') = 'off' THEN 'any table'
  ELSE string_agg(c.relname, ', ' ORDER BY c.relname)
END
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %(schema)s AND c.relkind = 'r' AND 'autovacuum_enabled=false' = ANY (c.reloptions);

-- name: missing_rights
-- What the user may not do in the schema, as a text; null: nothing is missing.
SELECT string_agg(what, ', ' ORDER BY what) FROM (
  SELECT format('%%s on %%s', right_, c.relname) AS what
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace,
    unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS right_
  WHERE n.nspname = %(schema)s AND c.relkind = 'r' AND NOT has_table_privilege(c.oid, right_)
  UNION ALL
  SELECT format('%%s()', p.proname)
  FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
  WHERE n.nspname = %(schema)s AND NOT has_function_privilege(p.oid, 'EXECUTE')
  LIMIT 6
) AS missing;

-- name: has_flag
SELECT true FROM claude_batch.flags WHERE name = %(flag)s AND expires_at > claude_batch.clock();
