-- Whether a job of this id may be made now. One that has expired makes way for it.
CREATE OR REPLACE FUNCTION claude_batch.free_job_id(job text) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
  found_id bigint;
  ends double precision;
BEGIN
  PERFORM claude_batch.lock_job_id(job);
  SELECT id, expires_at INTO found_id, ends FROM claude_batch.jobs WHERE job_id = job AND created FOR UPDATE;
  IF ends > claude_batch.clock() OR (found_id IS NOT NULL AND ends IS NULL) THEN
    RETURN false;
  END IF;
  IF found_id IS NOT NULL THEN
    PERFORM claude_batch.remove_jobs(ARRAY[found_id], false);
  END IF;
  -- What an earlier job of this id has left in the schedule is none of this one's.
  PERFORM claude_batch.remove_units(ARRAY[job], false, true);
  RETURN true;
END
$$;
