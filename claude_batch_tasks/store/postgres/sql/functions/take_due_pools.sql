-- Close pools that are due, and hand them out: each to one caller, and again when nobody has sealed it, each time after
-- twice as long. next: seconds until the next one; null: there is none.
CREATE OR REPLACE FUNCTION claude_batch.take_due_pools(
  most integer, again double precision, doublings integer, OUT taken text[], OUT next double precision
)
LANGUAGE plpgsql AS $$
DECLARE
  now double precision := claude_batch.clock();
BEGIN
  WITH due AS (
    SELECT job_id, next_at AS was_due FROM claude_batch.pools
    WHERE next_at <= now AND opened_in IS NULL ORDER BY next_at LIMIT most FOR NO KEY UPDATE SKIP LOCKED
  ), closed AS (
    UPDATE claude_batch.pools p SET
      state = 'closed', sent = p.sent + 1, next_at = now + again * 2 ^ least(p.sent, doublings)
    FROM due WHERE p.job_id = due.job_id RETURNING p.job_id, due.was_due
  )
  SELECT array_agg(job_id ORDER BY was_due, job_id) INTO taken FROM closed;
  SELECT greatest(next_at - now, 0) INTO next FROM claude_batch.pools
  WHERE next_at IS NOT NULL AND opened_in IS NULL ORDER BY next_at LIMIT 1;
END
$$;
