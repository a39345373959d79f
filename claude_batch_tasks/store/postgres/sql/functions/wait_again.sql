-- Let units wait for so many seconds whose messages could not be sent.
CREATE OR REPLACE FUNCTION claude_batch.wait_again(
  job_ids text[], batches integer[], lanes integer[], seconds double precision
) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
  WITH found AS (
    SELECT job_id, batch, lane FROM claude_batch.units
    WHERE (job_id, batch, lane) IN (SELECT * FROM unnest(job_ids, batches, lanes))
    ORDER BY job_id, batch, lane FOR UPDATE
  )
  UPDATE claude_batch.units u SET waiting = true, due_at = claude_batch.clock() + seconds
  FROM found f WHERE (u.job_id, u.batch, u.lane) = (f.job_id, f.batch, f.lane);
END
$$;
