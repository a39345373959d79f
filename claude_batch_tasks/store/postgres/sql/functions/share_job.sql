-- As find_job, and see that the job is not removed before the end of the transaction: nothing is ever added to a job that
-- is gone. It waits for nobody but who removes the job, and keeps nobody else waiting.
CREATE OR REPLACE FUNCTION claude_batch.share_job(job text) RETURNS bigint
LANGUAGE sql VOLATILE AS $$
  SELECT id FROM claude_batch.jobs
  WHERE job_id = job AND created AND (expires_at IS NULL OR expires_at > claude_batch.clock())
  FOR KEY SHARE
$$;
