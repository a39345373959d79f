-- Make a job: 1: it was made; 0: there is one of that id; -1: what was staged for it has expired.
-- made_once: nor is it made if one of that id was deleted within a day.
CREATE OR REPLACE FUNCTION claude_batch.create_job(
  job text, of_nonce text, at double precision, seconds double precision, of_staged boolean, made_once boolean,
  job_record jsonb, batch_records text[]
) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
  new_id bigint;
BEGIN
  IF NOT claude_batch.free_job_id(job) OR (made_once AND claude_batch.was_deleted(job)) THEN
    RETURN 0;
  END IF;
  new_id := claude_batch.insert_job(job, of_nonce, at, seconds, of_staged, job_record, batch_records);
  RETURN CASE WHEN new_id IS NULL THEN -1 ELSE 1 END;
END
$$;
