-- Keep the lease of a unit for so many seconds from now; false: the owner has lost it.
CREATE OR REPLACE FUNCTION claude_batch.renew_lease(
  job text, of_batch integer, of_lane integer, by_owner text, seconds double precision
) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
  ends double precision := claude_batch.clock() + seconds;
BEGIN
  UPDATE claude_batch.units SET lease_ends = ends, due_at = ends
  WHERE job_id = job AND batch = of_batch AND lane = of_lane AND owner = by_owner
    AND claude_batch.find_job(job) IS NOT NULL;
  RETURN FOUND;
END
$$;
