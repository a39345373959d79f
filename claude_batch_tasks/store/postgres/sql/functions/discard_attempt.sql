-- Remove the rows of a download. One that was published stays known, without rows.
CREATE OR REPLACE FUNCTION claude_batch.discard_attempt(
  job text, of_batch integer, of_attempt integer, of_copy text
) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
  of_job bigint := claude_batch.find_job(job);
BEGIN
  DELETE FROM claude_batch.result_attempts a
  WHERE a.job = of_job AND a.batch = of_batch AND a.attempt = of_attempt AND a.copy = of_copy
    AND a.expires_at IS NOT NULL;
  IF NOT FOUND THEN
    DELETE FROM claude_batch.result_chunks c
    WHERE c.job = of_job AND c.batch = of_batch AND c.attempt = of_attempt AND c.copy = of_copy;
  END IF;
END
$$;
