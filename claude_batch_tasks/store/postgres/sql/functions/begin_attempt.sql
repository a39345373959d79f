-- Begin to store a download, in the place of what was stored of it before. Return the job's id; null: it is gone.
CREATE OR REPLACE FUNCTION claude_batch.begin_attempt(
  job text, of_batch integer, of_attempt integer, of_copy text, seconds double precision
) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
  of_job bigint := claude_batch.share_job(job);
BEGIN
  IF of_job IS NOT NULL THEN
    DELETE FROM claude_batch.result_attempts a
    WHERE a.job = of_job AND a.batch = of_batch AND a.attempt = of_attempt AND a.copy = of_copy;
    INSERT INTO claude_batch.result_attempts (job, batch, attempt, copy, expires_at)
    VALUES (of_job, of_batch, of_attempt, of_copy, claude_batch.clock() + seconds);
  END IF;
  RETURN of_job;
END
$$;
