-- Change the record of a unit whose lease the caller has locked, and its position: then nobody has the lease any more.
-- new_position null: it stays, and so does the rest. Returns how many batches of the job have finished, if that is
-- changed by this; for that the job is locked, too.
CREATE OR REPLACE FUNCTION claude_batch.change_unit(
  found_id bigint, job text, of_batch integer, of_lane integer, changes jsonb, new_position bigint DEFAULT null,
  due double precision DEFAULT null, waits boolean DEFAULT false, of_account text DEFAULT null, as_flight text DEFAULT null,
  until double precision DEFAULT null
) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
  own_changes jsonb := changes - 'step_failures' - 'step_failure';
  finished integer := 0;
BEGIN
  IF new_position IS NOT NULL THEN
    UPDATE claude_batch.units SET
      position = new_position, owner = null, lease_ends = null, due_at = due, waiting = waits,
      account = of_account, flight = as_flight, deadline = until
    WHERE job_id = job AND batch = of_batch AND lane = of_lane;
  END IF;
  IF own_changes <> changes THEN
    UPDATE claude_batch.units SET
      step_failures = coalesce((changes ->> 'step_failures')::integer, step_failures),
      step_failure = CASE WHEN changes ? 'step_failure' THEN nullif(changes ->> 'step_failure', 'null') ELSE step_failure END
    WHERE job_id = job AND batch = of_batch AND lane = of_lane;
  END IF;
  -- The job's own steps change its record otherwise.
  IF of_batch < 0 THEN
    RETURN 0;
  END IF;
  IF of_lane < 0 AND changes ->> 'done' = 'true' THEN
    UPDATE claude_batch.records r SET record = record || jsonb_build_object('through', (
      (record ->> 'through')::integer + (
        SELECT CASE WHEN b.record ->> 'done' = 'true' THEN 0 ELSE 1 END
        FROM claude_batch.records b WHERE b.job = found_id AND b.batch = of_batch AND b.lane = -1
      )
    )::text)
    WHERE r.job = found_id AND batch = -1 AND lane = -1
    RETURNING (record ->> 'through')::integer INTO finished;
  END IF;
  IF own_changes <> '{}' THEN
    UPDATE claude_batch.records r SET record = record || own_changes
    WHERE r.job = found_id AND batch = of_batch AND lane = of_lane;
  END IF;
  RETURN coalesce(finished, 0);
END
$$;
