-- Begin to write a job that is copied from another store, and return the id of its rows. Of one that was interrupted, nothing
-- is in the way. What is written expires in so many seconds, unless it becomes a job.
CREATE OR REPLACE FUNCTION claude_batch.begin_import(job text, seconds double precision) RETURNS bigint
LANGUAGE plpgsql AS $$
BEGIN
  PERFORM claude_batch.discard_staged(job, 'copy');
  DELETE FROM claude_batch.pools WHERE job_id = job;
  RETURN claude_batch.stage_job(job, 'copy', seconds);
END
$$;
