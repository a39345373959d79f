-- See that a request which is about to be sent through the Messages API is still its sender's, and renew the sender's lease.
CREATE OR REPLACE FUNCTION claude_batch.confirm_request(
  of_job text, of_batch integer, of_lane integer, by_owner text, of_position integer, seconds double precision
) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
  ends double precision := claude_batch.clock() + seconds;
BEGIN
  UPDATE claude_batch.units u SET lease_ends = ends, due_at = ends
  WHERE u.job_id = of_job AND u.batch = of_batch AND u.lane = of_lane AND u.owner = by_owner AND EXISTS (
    SELECT FROM claude_batch.calls c
    WHERE c.job = claude_batch.find_job(of_job) AND c.batch = of_batch AND c.position = of_position
      AND c.lane = greatest(of_lane, 0)
  );
  RETURN FOUND;
END
$$;
