-- Remove jobs and stagings whose rows the caller has locked. They are gone at once; clear_job removes what belonged to them.
CREATE OR REPLACE FUNCTION claude_batch.remove_jobs(ids bigint[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
  names text[] := ARRAY(SELECT job_id FROM claude_batch.jobs WHERE id = ANY (ids) AND created);
BEGIN
  PERFORM FROM claude_batch.units WHERE job_id = ANY (names) ORDER BY job_id, batch, lane FOR UPDATE;
  DELETE FROM claude_batch.units WHERE job_id = ANY (names);
  DELETE FROM claude_batch.jobs WHERE id = ANY (ids);
  INSERT INTO claude_batch.removed_jobs (id) SELECT unnest(ids);
END
$$;
