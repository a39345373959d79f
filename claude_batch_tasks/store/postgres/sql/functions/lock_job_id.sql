-- Let no other transaction make or delete a job of this id before the end of this one.
CREATE OR REPLACE FUNCTION claude_batch.lock_job_id(job text) RETURNS void
LANGUAGE sql VOLATILE AS $$
  SELECT pg_advisory_xact_lock(hashtextextended(job, 0))
$$;
