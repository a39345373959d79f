-- Make a job of what was staged for it, or of nothing; its id is free. Null: what was staged has expired.
-- seconds: until it expires; null: it does not. The records of its batches are in their order.
CREATE OR REPLACE FUNCTION claude_batch.insert_job(
  job text, of_nonce text, at double precision, seconds double precision, of_staged boolean, job_record jsonb,
  batch_records text[]
) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
  now double precision := claude_batch.clock();
  new_id bigint;
BEGIN
  IF of_staged THEN
    UPDATE claude_batch.jobs SET created = true, submitted_at = at, expires_at = now + seconds
    WHERE job_id = job AND nonce = of_nonce AND NOT created AND expires_at > now
    RETURNING id INTO new_id;
    IF new_id IS NULL THEN
      RETURN null;
    END IF;
  ELSE
    INSERT INTO claude_batch.jobs (job_id, nonce, created, submitted_at, expires_at)
    VALUES (job, of_nonce, true, at, now + seconds)
    RETURNING id INTO new_id;
  END IF;
  INSERT INTO claude_batch.records (job, batch, lane, record)
  SELECT new_id, -1, -1, job_record
  UNION ALL
  SELECT new_id, place - 1, -1, each::jsonb FROM unnest(batch_records) WITH ORDINALITY AS batches (each, place);
  RETURN new_id;
END
$$;
