-- Remove what was staged for a job under a nonce; clear_job removes its rows. Returns its id, or null: nothing was staged.
CREATE OR REPLACE FUNCTION claude_batch.discard_staged(job text, by_nonce text) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
  staged bigint;
BEGIN
  DELETE FROM claude_batch.jobs WHERE job_id = job AND nonce = by_nonce AND NOT created RETURNING id INTO staged;
  IF FOUND THEN
    INSERT INTO claude_batch.removed_jobs (id) VALUES (staged);
  END IF;
  RETURN staged;
END
$$;
