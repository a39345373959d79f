-- Whether a unit is one of a job that exists, with a record if it is a batch.
CREATE OR REPLACE FUNCTION claude_batch.unit_stands(of_job bigint, of_batch integer, of_lane integer) RETURNS boolean
LANGUAGE sql STABLE AS $$
  SELECT of_job IS NOT NULL AND (
    of_batch < 0 OR of_lane >= 0
    OR EXISTS (SELECT FROM claude_batch.records WHERE job = of_job AND batch = of_batch AND lane = -1)
  )
$$;
