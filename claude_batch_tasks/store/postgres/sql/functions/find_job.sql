-- The id of a job that exists, and has not expired; null: there is none.
CREATE OR REPLACE FUNCTION claude_batch.find_job(job text) RETURNS bigint
LANGUAGE sql STABLE AS $$
  SELECT id FROM claude_batch.jobs
  WHERE job_id = job AND created AND (expires_at IS NULL OR expires_at > claude_batch.clock())
$$;
