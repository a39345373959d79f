-- Remove the units of jobs from the schedule, in their order; keep_waiting: but those that wait; begun_only: but those that
-- nobody has begun, and that do not wait.
CREATE OR REPLACE FUNCTION claude_batch.remove_units(job_ids text[], keep_waiting boolean, begun_only boolean) RETURNS void
LANGUAGE sql VOLATILE AS $$
  WITH found AS (
    SELECT job_id, batch, lane FROM claude_batch.units
    WHERE job_id = ANY (job_ids) AND NOT (keep_waiting AND waiting) AND NOT (begun_only AND position < 0 AND NOT waiting)
    ORDER BY job_id, batch, lane FOR UPDATE
  )
  DELETE FROM claude_batch.units u USING found f WHERE (u.job_id, u.batch, u.lane) = (f.job_id, f.batch, f.lane)
$$;
