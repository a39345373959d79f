-- Remove some rows of each table that count as gone, at most so many of each; jobs are left to expire_jobs.
CREATE OR REPLACE FUNCTION claude_batch.sweep_expired(most integer) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
  name regclass;
BEGIN
  FOR name IN SELECT claude_batch.tables_with('expires_at') LOOP
    CONTINUE WHEN name = 'claude_batch.jobs'::regclass;
    EXECUTE format(
      'DELETE FROM %1$s WHERE ctid = ANY (ARRAY('
      'SELECT ctid FROM %1$s WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED))', name
    ) USING claude_batch.clock(), most;
  END LOOP;
END
$$;
