-- Let no waiting request of a batch be sent any more; return how many waited.
CREATE OR REPLACE FUNCTION claude_batch.drop_waiting(of_job text, of_batch integer) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
  found_id bigint := claude_batch.lock_job(of_job);
  dropped bigint;
BEGIN
  WITH never_refused AS (
    DELETE FROM claude_batch.calls
    WHERE job = found_id AND batch = of_batch AND due_at IS NOT NULL AND refused = 0 RETURNING 1
  ), refused_before AS (
    UPDATE claude_batch.calls SET due_at = NULL
    WHERE job = found_id AND batch = of_batch AND due_at IS NOT NULL AND refused > 0 RETURNING 1
  )
  SELECT (SELECT count(*) FROM never_refused) + (SELECT count(*) FROM refused_before) INTO dropped;
  RETURN dropped;
END
$$;
