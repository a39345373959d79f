-- Whether a batch in flight is the one whose task is to make a list call, of those of its account and queue; see
-- rules.asks_for_list_call. Who decides it for another at this moment decides it for this one: not this time.
CREATE OR REPLACE FUNCTION claude_batch.ask_for_list_call(
  of_account text, of_queue text, of_job_id text, of_batch integer, now double precision,
  longest_in_broker double precision, unclaimed_seconds double precision, max_vain_polls integer
) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
  asked claude_batch.list_call_askers;
  in_vain integer;
BEGIN
  IF NOT pg_try_advisory_xact_lock(hashtextextended('claude_batch:list:' || of_account || ':' || of_queue, 0)) THEN
    RETURN false;
  END IF;
  SELECT * INTO asked FROM claude_batch.list_call_askers
  WHERE account = of_account AND queue = of_queue AND expires_at > now;
  in_vain := coalesce(asked.in_vain, 0);
  IF in_vain >= max_vain_polls THEN
    RETURN true;
  ELSIF now < asked.asked_at + longest_in_broker THEN
    RETURN false;
  ELSIF asked.job_id IS NOT NULL AND NOT EXISTS (
    SELECT FROM claude_batch.units
    WHERE job_id = asked.job_id AND batch = asked.batch AND lane = -1 AND due_at = asked.asked_at
  ) THEN
    in_vain := in_vain + 1;  -- it was taken, and has made no list call
  ELSIF now < asked.asked_at + unclaimed_seconds THEN
    RETURN false;
  END IF;
  INSERT INTO claude_batch.list_call_askers (account, queue, job_id, batch, asked_at, in_vain, expires_at)
  VALUES (of_account, of_queue, of_job_id, of_batch, now, in_vain, now + 3600)
  ON CONFLICT (account, queue) DO UPDATE SET
    job_id = excluded.job_id, batch = excluded.batch, asked_at = excluded.asked_at, in_vain = excluded.in_vain,
    expires_at = excluded.expires_at;
  RETURN true;
END
$$;
