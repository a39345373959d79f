-- Begin to stage the requests of a job, or go on, for so many seconds; return the id under which its rows are.
CREATE OR REPLACE FUNCTION claude_batch.stage_job(job text, by_nonce text, seconds double precision) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
  staged bigint;
BEGIN
  -- What has expired is not to become part of it.
  IF EXISTS (
    SELECT FROM claude_batch.jobs WHERE job_id = job AND nonce = by_nonce AND NOT created
    AND expires_at <= claude_batch.clock()
  ) THEN
    PERFORM claude_batch.discard_staged(job, by_nonce);
  END IF;
  INSERT INTO claude_batch.jobs (job_id, nonce, expires_at) VALUES (job, by_nonce, claude_batch.clock() + seconds)
  ON CONFLICT (job_id, nonce) WHERE NOT created DO UPDATE SET expires_at = excluded.expires_at
  RETURNING id INTO staged;
  RETURN staged;
END
$$;
