-- No message of a unit is to come, and no list call speaks for it any more.
CREATE OR REPLACE FUNCTION claude_batch.remove_unit(job text, of_batch integer, of_lane integer) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
  IF claude_batch.find_job(job) IS NULL THEN
    DELETE FROM claude_batch.units WHERE job_id = job AND batch = of_batch AND lane = of_lane;
  ELSE
    UPDATE claude_batch.units SET due_at = null, waiting = false, account = null, flight = null, deadline = null
    WHERE job_id = job AND batch = of_batch AND lane = of_lane;
  END IF;
END
$$;
