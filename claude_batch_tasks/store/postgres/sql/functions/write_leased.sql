-- Change the record of a unit; null: the owner has lost the lease. Returns how many batches of the job have finished, if
-- this one has finished.
CREATE OR REPLACE FUNCTION claude_batch.write_leased(
  job text, of_batch integer, of_lane integer, by_owner text, changes jsonb
) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
  found_id bigint := claude_batch.lock_lease(
    job, of_batch, of_lane, by_owner, of_batch >= 0 AND of_lane < 0 AND changes ? 'done'
  );
BEGIN
  IF found_id IS NULL THEN
    RETURN null;
  END IF;
  RETURN claude_batch.change_unit(found_id, job, of_batch, of_lane, changes);
END
$$;
