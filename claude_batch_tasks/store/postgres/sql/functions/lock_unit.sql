-- The row of a unit, which is made if need be, and locked until the end of the transaction; null: the unit is gone.
-- A job that is removed takes its units with it, and waits for whoever has locked one.
CREATE OR REPLACE FUNCTION claude_batch.lock_unit(job text, of_batch integer, of_lane integer)
RETURNS claude_batch.units
LANGUAGE plpgsql AS $$
DECLARE
  unit claude_batch.units;
  found_id bigint;
BEGIN
  SELECT * INTO unit FROM claude_batch.units WHERE job_id = job AND batch = of_batch AND lane = of_lane FOR UPDATE;
  IF FOUND THEN
    IF claude_batch.unit_stands(claude_batch.find_job(job), of_batch, of_lane) THEN
      RETURN unit;
    END IF;
    DELETE FROM claude_batch.units WHERE job_id = job AND batch = of_batch AND lane = of_lane;
    RETURN null;
  END IF;
  found_id := claude_batch.share_job(job);
  IF NOT claude_batch.unit_stands(found_id, of_batch, of_lane) THEN
    RETURN null;
  END IF;
  INSERT INTO claude_batch.units (job_id, batch, lane) VALUES (job, of_batch, of_lane) ON CONFLICT DO NOTHING;
  SELECT * INTO unit FROM claude_batch.units WHERE job_id = job AND batch = of_batch AND lane = of_lane FOR UPDATE;
  RETURN unit;
END
$$;
