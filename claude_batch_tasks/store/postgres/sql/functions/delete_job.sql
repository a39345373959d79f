-- Remove a job and its units; clear_job removes what belonged to it. Returns its id, or null: there was none.
-- seconds: for how long it is remembered that a user deleted it; null: it is not.
CREATE OR REPLACE FUNCTION claude_batch.delete_job(job text, seconds double precision) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
  found_id bigint;
BEGIN
  PERFORM claude_batch.lock_job_id(job);
  SELECT id INTO found_id FROM claude_batch.jobs WHERE job_id = job AND created FOR UPDATE;
  IF seconds IS NOT NULL THEN
    INSERT INTO claude_batch.flags (name, expires_at) VALUES ('deleted:' || job, claude_batch.clock() + seconds)
    ON CONFLICT (name) DO UPDATE SET expires_at = excluded.expires_at;
  END IF;
  IF found_id IS NULL THEN
    PERFORM claude_batch.remove_units(ARRAY[job], false, false);
    DELETE FROM claude_batch.pools WHERE job_id = job;
  ELSE
    PERFORM claude_batch.remove_jobs(ARRAY[found_id], false);
  END IF;
  RETURN found_id;
END
$$;
