-- Let requests of a batch wait to be sent, except those that are on their way or have an outcome.
CREATE OR REPLACE FUNCTION claude_batch.enter_requests(of_job text, of_batch integer, positions integer[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
  found_id bigint := claude_batch.lock_job(of_job);
BEGIN
  IF found_id IS NOT NULL THEN
    INSERT INTO claude_batch.calls AS c (job, batch, position, due_at)
    SELECT DISTINCT found_id, of_batch, wanted.position, 0 FROM unnest(positions) AS wanted (position)
    WHERE NOT EXISTS (
      SELECT FROM claude_batch.outcomes o
      WHERE o.job = found_id AND o.batch = of_batch AND o.position = wanted.position
    )
    ON CONFLICT (job, batch, position) DO UPDATE SET due_at = 0 WHERE c.due_at IS NULL AND c.lane IS NULL;
  END IF;
END
$$;
