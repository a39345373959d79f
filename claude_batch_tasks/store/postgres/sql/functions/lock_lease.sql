-- The id of a unit's job, if the owner still has the unit's lease, which nobody takes before the end of the transaction;
-- null: it is somebody else's. whole_job: more of the job is to change, whose row is locked first.
CREATE OR REPLACE FUNCTION claude_batch.lock_lease(
  job text, of_batch integer, of_lane integer, by_owner text, whole_job boolean DEFAULT false
) RETURNS bigint
LANGUAGE plpgsql AS $$
BEGIN
  IF whole_job THEN
    PERFORM claude_batch.lock_job(job);
  END IF;
  PERFORM FROM claude_batch.units
  WHERE job_id = job AND batch = of_batch AND lane = of_lane AND owner = by_owner FOR UPDATE;
  RETURN CASE WHEN FOUND THEN claude_batch.find_job(job) END;
END
$$;
