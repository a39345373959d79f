-- Put a copy in the place of a download's rows; whether it was done: not if the job or the copy is gone.
CREATE OR REPLACE FUNCTION claude_batch.restore_attempt(
  job text, of_batch integer, of_attempt integer, of_copy text, new_pieces bytea, new_eligible bytea, new_again bytea,
  parts integer[], new_entries bytea[]
) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
  of_job bigint := claude_batch.lock_job(job);
  known bytea;
BEGIN
  PERFORM FROM claude_batch.result_attempts a
  WHERE a.job = of_job AND a.batch = of_batch AND a.attempt = of_attempt AND a.copy = of_copy
    AND a.expires_at > claude_batch.clock()
  FOR UPDATE;
  IF NOT FOUND THEN
    RETURN false;
  END IF;
  DELETE FROM claude_batch.result_attempts a
  WHERE a.job = of_job AND a.batch = of_batch AND a.attempt = of_attempt AND a.copy = ''
  RETURNING a.again INTO known;
  UPDATE claude_batch.result_attempts a SET copy = ''
  WHERE a.job = of_job AND a.batch = of_batch AND a.attempt = of_attempt AND a.copy = of_copy;
  PERFORM claude_batch.put_attempt(
    of_job, of_batch, of_attempt, new_pieces, new_eligible, coalesce(new_again, known), parts, new_entries
  );
  RETURN true;
END
$$;
