-- Remove some of the jobs and stagings that have expired, at most so many; clear_job removes what belonged to them.
CREATE OR REPLACE FUNCTION claude_batch.expire_jobs(most integer) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
  ids bigint[] := ARRAY(
    SELECT id FROM claude_batch.jobs WHERE expires_at <= claude_batch.clock()
    ORDER BY expires_at LIMIT most FOR UPDATE SKIP LOCKED
  );
BEGIN
  IF ids <> '{}' THEN
    PERFORM claude_batch.remove_jobs(ids, true);
  END IF;
END
$$;
