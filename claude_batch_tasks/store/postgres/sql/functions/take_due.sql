-- Units whose wait is over, each to one caller, and the seconds until the next; null: none waits. The numbers are those of
-- rules.polling and rules.retries; rules.shared_polls is what this decides.
CREATE OR REPLACE FUNCTION claude_batch.take_due(
  most integer, longest_in_broker double precision, unclaimed_seconds double precision, max_unclaimed integer,
  max_vain_polls integer, list_call_from integer,
  OUT job_ids text[], OUT batches integer[], OUT lanes integer[], OUT pause double precision
)
LANGUAGE plpgsql AS $$
DECLARE
  now double precision := claude_batch.clock();
  remaining integer;
  unit record;
  job jsonb;
  spared_until double precision;
BEGIN
  job_ids := '{}';
  batches := '{}';
  lanes := '{}';
  -- No more are out than keep workers busy: what is new need not wait behind all that is due.
  SELECT least(most, greatest(max_unclaimed - count(*), 1)) INTO remaining FROM (
    SELECT FROM claude_batch.units
    WHERE NOT waiting AND due_at >= now - unclaimed_seconds AND due_at <= now LIMIT max_unclaimed
  ) AS out;
  FOR unit IN
    WITH due AS MATERIALIZED (
      SELECT job_id, batch, lane, due_at, account, deadline FROM claude_batch.units
      WHERE waiting AND due_at <= now ORDER BY due_at LIMIT 1000
    ), accounts AS MATERIALIZED (
      SELECT account, claude_batch.paused_until(account) AS paused, claude_batch.paused_until(account || ':list') > now
        OR list_call_from > (
          SELECT count(*) FROM (
            SELECT FROM claude_batch.units u WHERE u.account = known.account ORDER BY due_at LIMIT list_call_from
          ) AS in_flight
        ) AS single,
        (SELECT expires_at > now FROM claude_batch.flags WHERE name = 'listing:' || account) AS listing
      FROM (SELECT DISTINCT account FROM due WHERE account IS NOT NULL) AS known
    )
    SELECT due.*, paused, single, listing FROM due LEFT JOIN accounts USING (account) ORDER BY due.due_at
  LOOP
    EXIT WHEN remaining <= 0;
    PERFORM FROM claude_batch.units u
    WHERE (u.job_id, u.batch, u.lane) = (unit.job_id, unit.batch, unit.lane) AND waiting AND due_at <= now
    FOR UPDATE SKIP LOCKED;
    CONTINUE WHEN NOT FOUND;
    spared_until := null;
    job := null;
    IF unit.account IS NOT NULL AND (unit.deadline IS NULL OR unit.deadline > now) THEN
      SELECT r.record INTO job FROM claude_batch.jobs j
      JOIN claude_batch.records r ON r.job = j.id AND r.batch = -1 AND r.lane = -1
      WHERE j.job_id = unit.job_id AND j.created AND (j.expires_at IS NULL OR j.expires_at > now);
    END IF;
    -- One of a job that is over, or past its deadline, makes no list call.
    IF job ->> 'state' = '"running"' THEN
      IF unit.paused > now THEN
        spared_until := least(unit.paused, unit.deadline);
      ELSIF NOT unit.single AND (coalesce(unit.listing, false) OR NOT claude_batch.ask_for_list_call(
        unit.account, coalesce(job ->> 'queue', ''), unit.job_id, unit.batch, now, longest_in_broker, unclaimed_seconds,
        max_vain_polls
      )) THEN
        spared_until := now + longest_in_broker;
      END IF;
    END IF;
    UPDATE claude_batch.units u SET waiting = spared_until IS NOT NULL, due_at = coalesce(spared_until, now)
    WHERE (u.job_id, u.batch, u.lane) = (unit.job_id, unit.batch, unit.lane);
    IF spared_until IS NULL THEN
      remaining := remaining - 1;
      job_ids := job_ids || unit.job_id;
      batches := batches || unit.batch;
      lanes := lanes || unit.lane;
    END IF;
  END LOOP;
  SELECT greatest(due_at - now, 0) INTO pause FROM claude_batch.units
  WHERE waiting AND due_at IS NOT NULL ORDER BY due_at LIMIT 1;
END
$$;
