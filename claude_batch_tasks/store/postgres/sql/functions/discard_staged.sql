-- Remove what was staged for a job under a nonce.
CREATE OR REPLACE FUNCTION claude_batch.discard_staged(job text, by_nonce text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
  PERFORM claude_batch.remove_jobs(ARRAY(
    SELECT id FROM claude_batch.jobs WHERE job_id = job AND nonce = by_nonce AND NOT created FOR UPDATE
  ));
END
$$;
