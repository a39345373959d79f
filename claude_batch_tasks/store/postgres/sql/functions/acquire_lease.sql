-- Take the lease of a unit for the message at a position. The numbers at the end are those of rules.leases.
CREATE OR REPLACE FUNCTION claude_batch.acquire_lease(
  job text, of_batch integer, of_lane integer, at_position bigint, by_owner text, seconds double precision,
  lateness_left double precision, max_lateness double precision,
  OUT state text, OUT remaining double precision, OUT now double precision, OUT failures integer, OUT failure text
)
LANGUAGE plpgsql AS $$
DECLARE
  unit claude_batch.units := claude_batch.lock_unit(job, of_batch, of_lane);
BEGIN
  now := claude_batch.clock();
  remaining := 0;
  failures := 0;
  IF unit.job_id IS NULL THEN
    state := 'gone';
    RETURN;
  ELSIF at_position < unit.position THEN
    state := 'stale';
    RETURN;
  END IF;
  state := 'taken';
  IF at_position > unit.position THEN
    -- The step before has run, though its unit has not advanced yet: how often that was interrupted is not this step's.
    unit.step_failures := 0;
    unit.step_failure := null;
  ELSIF unit.owner <> by_owner THEN
    IF unit.lease_ends > now THEN
      state := 'busy';
      remaining := unit.lease_ends - now;
      RETURN;
    END IF;
    state := 'taken_over';
    unit.step_failures := unit.step_failures + 1;
    unit.step_failure := null;
  END IF;
  UPDATE claude_batch.units SET
    position = at_position, owner = by_owner, lease_ends = now + seconds, due_at = now + seconds,
    step_failures = unit.step_failures, step_failure = unit.step_failure, resent = 0, resent_at = null, missed = null,
    -- Whatever message this is, the unit waits no longer.
    waiting = false, account = null, flight = null, deadline = null
  WHERE job_id = job AND batch = of_batch AND lane = of_lane;
  IF of_lane >= 0 AND unit.position < 0 THEN
    INSERT INTO claude_batch.records (job, batch, lane, record)
    SELECT found_id, of_batch, of_lane, '{}' FROM claude_batch.find_job(job) AS found_id WHERE found_id IS NOT NULL
    ON CONFLICT DO NOTHING;
  END IF;
  IF state = 'taken' AND unit.resent_at IS NULL THEN
    -- Its own message, not a copy: how late it is says how long the queue is.
    PERFORM claude_batch.record_lateness(now - unit.due_at, lateness_left, max_lateness);
  END IF;
  failures := unit.step_failures;
  failure := unit.step_failure;
END
$$;
