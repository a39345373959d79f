-- Remove some rows, at most so many, of a job that was removed and that nobody else is at; false: there is none.
CREATE OR REPLACE FUNCTION claude_batch.clear_some_job(most integer) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
  removed bigint;
BEGIN
  SELECT id INTO removed FROM claude_batch.removed_jobs ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED;
  IF NOT FOUND THEN
    RETURN false;
  END IF;
  PERFORM claude_batch.clear_job(removed, most);
  RETURN true;
END
$$;
