-- Remove jobs and stagings whose rows the caller has locked. They are gone at once; clear_job removes what belonged to them.
-- keep_waiting: units that wait stay in the schedule until it was reported that their job is gone.
CREATE OR REPLACE FUNCTION claude_batch.remove_jobs(ids bigint[], keep_waiting boolean DEFAULT false) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
  names text[] := ARRAY(SELECT job_id FROM claude_batch.jobs WHERE id = ANY (ids) AND created);
BEGIN
  PERFORM claude_batch.remove_units(names, keep_waiting, false);
  DELETE FROM claude_batch.jobs WHERE id = ANY (ids);
  DELETE FROM claude_batch.pools WHERE job_id = ANY (names);
  INSERT INTO claude_batch.removed_jobs (id) SELECT unnest(ids);
END
$$;
