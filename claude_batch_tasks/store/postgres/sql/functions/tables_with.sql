-- The tables of the schema that have a column of this name. What is in a column job belongs to the job of that id, and goes
-- with it; expires_at is when a row counts as gone, and may be removed.
CREATE OR REPLACE FUNCTION claude_batch.tables_with(wanted text) RETURNS SETOF regclass
LANGUAGE sql STABLE AS $$
  SELECT c.oid::regclass FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
  WHERE c.relnamespace = to_regnamespace('claude_batch') AND c.relkind = 'r'
    AND a.attname = wanted AND NOT a.attisdropped
  ORDER BY c.oid
$$;
