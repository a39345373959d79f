-- Give a batch id up, in one with changes to the unit's record; false: the owner has lost the lease.
CREATE OR REPLACE FUNCTION claude_batch.release_batch(
  job text, of_batch integer, of_lane integer, by_owner text, id text, changes jsonb
) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
  found_id bigint := claude_batch.lock_lease(job, of_batch, of_lane, by_owner);
BEGIN
  IF found_id IS NULL THEN
    RETURN false;
  END IF;
  DELETE FROM claude_batch.batch_ids WHERE batch_id = id AND (job_id, batch, lane) = (job, of_batch, of_lane);
  PERFORM claude_batch.change_unit(found_id, job, of_batch, of_lane, changes);
  RETURN true;
END
$$;
