-- The position of a unit whose message seems to be lost, and when it was due; nulls: it is not lost, or somebody else was
-- told so. after: seconds by which it must be overdue; 0: whether or not it is. The numbers at the end are those of
-- rules.leases.
CREATE OR REPLACE FUNCTION claude_batch.find_lost(
  job text, of_batch integer, of_lane integer, after double precision, just_now double precision, max_copies integer,
  OUT at_position bigint, OUT due double precision
)
LANGUAGE plpgsql AS $$
DECLARE
  unit claude_batch.units;
  now double precision;
  times integer;
BEGIN
  PERFORM FROM claude_batch.units WHERE job_id = job AND batch = of_batch AND lane = of_lane AND due_at IS NOT NULL;
  IF NOT FOUND THEN
    RETURN;
  END IF;
  unit := claude_batch.lock_unit(job, of_batch, of_lane);
  now := claude_batch.clock();
  -- What waits without a message is returned by take_due, also when no worker ran for hours.
  IF unit.due_at IS NULL OR unit.waiting OR unit.lease_ends > now THEN
    RETURN;
  END IF;
  IF after > 0 AND unit.due_at + after + 2 * claude_batch.usual_lateness() > now
      OR after = 0 AND unit.resent_at + just_now > now THEN
    RETURN;
  END IF;
  times := least(unit.resent + 1, max_copies);
  UPDATE claude_batch.units SET
    resent = times, resent_at = now,
    missed = CASE WHEN unit.due_at < now THEN coalesce(missed, unit.due_at) ELSE missed END,
    -- A queue that is merely long gets fewer and fewer copies of what it has already.
    due_at = CASE WHEN after > 0 THEN now + after * (2 ^ times - 1) ELSE unit.due_at END
  WHERE job_id = job AND batch = of_batch AND lane = of_lane;
  at_position := unit.position;
  due := unit.due_at;
END
$$;
