-- Move a unit to a position, with changes to its record, and release its lease; false: the owner has lost it.
-- finished: no message of it is to come; what comes after the last step of a batch is the job's.
CREATE OR REPLACE FUNCTION claude_batch.advance_unit(
  job text, of_batch integer, of_lane integer, by_owner text, new_position bigint, due double precision,
  finished boolean, changes jsonb
) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
  follows boolean := finished AND of_batch >= 0 AND of_lane < 0;
  found_id bigint;
  now double precision;
BEGIN
  IF follows THEN
    -- Units are locked in their order, and that of the job is the first.
    PERFORM claude_batch.lock_job(job);
    PERFORM claude_batch.lock_unit(job, -1, -1);
  END IF;
  found_id := claude_batch.lock_lease(
    job, of_batch, of_lane, by_owner, of_batch >= 0 AND of_lane < 0 AND changes ? 'done'
  );
  IF found_id IS NULL THEN
    RETURN false;
  END IF;
  now := claude_batch.clock();
  PERFORM claude_batch.change_unit(
    found_id, job, of_batch, of_lane, changes, new_position, CASE WHEN NOT finished THEN greatest(due, now) END
  );
  IF follows THEN
    -- That nothing came for the job while its batches were on their way is no sign that messages get lost.
    UPDATE claude_batch.units SET due_at = now, resent = 0, resent_at = null, missed = null
    WHERE job_id = job AND batch = -1 AND lane = -1;
  END IF;
  RETURN true;
END
$$;
