-- As advance_unit, for a unit that then waits without a message for so many seconds; take_due returns it.
-- of_account, as_flight: the batch in flight, and how it is listed among those of its account while it waits; until: when
-- its job gives up waiting.
CREATE OR REPLACE FUNCTION claude_batch.park_unit(
  job text, of_batch integer, of_lane integer, by_owner text, new_position bigint, seconds double precision,
  of_account text, as_flight text, until double precision, changes jsonb
) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
  found_id bigint := claude_batch.lock_lease(
    job, of_batch, of_lane, by_owner, of_batch >= 0 AND of_lane < 0 AND changes ? 'done'
  );
  due double precision := claude_batch.clock() + seconds;
BEGIN
  IF found_id IS NULL THEN
    RETURN false;
  END IF;
  PERFORM claude_batch.change_unit(
    found_id, job, of_batch, of_lane, changes, new_position, due, true, of_account, as_flight, until
  );
  PERFORM claude_batch.announce_due(due);
  RETURN true;
END
$$;
