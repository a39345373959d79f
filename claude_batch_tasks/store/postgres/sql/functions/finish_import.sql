-- Make a job of what was written for it, unless there is one of its id; whether it was made. Its units are written next, in
-- the same transaction. seconds: until it expires; null: it does not.
CREATE OR REPLACE FUNCTION claude_batch.finish_import(
  job text, written bigint, of_nonce text, at double precision, seconds double precision
) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
  IF NOT claude_batch.free_job_id(job) THEN
    RETURN false;
  END IF;
  DELETE FROM claude_batch.units WHERE job_id = job;
  UPDATE claude_batch.jobs
  SET created = true, nonce = of_nonce, submitted_at = at, expires_at = claude_batch.clock() + seconds
  WHERE id = written;
  RETURN FOUND;
END
$$;
