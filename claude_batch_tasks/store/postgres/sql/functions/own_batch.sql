-- Make a batch id a unit's, in one with changes to its record, unless another unit has it; returns who has it. Nulls: the
-- owner has lost the lease. other: the unit that may have it and does not use it; forced: whoever has it.
CREATE OR REPLACE FUNCTION claude_batch.own_batch(
  job text, of_batch integer, of_lane integer, by_owner text, id text, seconds double precision, forced boolean,
  other_job text, other_batch integer, other_lane integer, changes jsonb,
  OUT owner_job text, OUT owner_batch integer, OUT owner_lane integer
)
LANGUAGE plpgsql AS $$
DECLARE
  found_id bigint := claude_batch.lock_lease(job, of_batch, of_lane, by_owner);
  now double precision := claude_batch.clock();
BEGIN
  IF found_id IS NULL THEN
    RETURN;
  END IF;
  INSERT INTO claude_batch.batch_ids AS b (batch_id, job_id, batch, lane, expires_at)
  VALUES (id, job, of_batch, of_lane, now + seconds)
  ON CONFLICT (batch_id) DO UPDATE
  SET job_id = excluded.job_id, batch = excluded.batch, lane = excluded.lane, expires_at = excluded.expires_at
  WHERE forced OR b.expires_at <= now OR (b.job_id, b.batch, b.lane) = (job, of_batch, of_lane)
    OR (b.job_id, b.batch, b.lane) = (other_job, other_batch, other_lane);
  IF FOUND THEN
    PERFORM claude_batch.change_unit(found_id, job, of_batch, of_lane, changes);
  END IF;
  SELECT job_id, batch, lane INTO owner_job, owner_batch, owner_lane
  FROM claude_batch.batch_ids WHERE batch_id = id;
END
$$;
