-- As find_job, and lock it until the end of the transaction. Whatever changes more than one row of a job does this first:
-- then two that do so at once wait for one another, and never each for the other.
CREATE OR REPLACE FUNCTION claude_batch.lock_job(job text) RETURNS bigint
LANGUAGE sql VOLATILE AS $$
  SELECT id FROM claude_batch.jobs
  WHERE job_id = job AND created AND (expires_at IS NULL OR expires_at > claude_batch.clock())
  FOR NO KEY UPDATE
$$;
