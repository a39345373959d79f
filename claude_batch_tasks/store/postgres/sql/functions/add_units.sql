-- A message of each unit is to come at a moment; of those that wait without one, none is.
CREATE OR REPLACE FUNCTION claude_batch.add_units(
  job_ids text[], batches integer[], lanes integer[], at double precision
) RETURNS void
LANGUAGE sql VOLATILE AS $$
  INSERT INTO claude_batch.units AS u (job_id, batch, lane, due_at)
  SELECT DISTINCT job_id, batch, lane, at FROM unnest(job_ids, batches, lanes) AS added (job_id, batch, lane)
  ORDER BY job_id, batch, lane
  ON CONFLICT (job_id, batch, lane) DO UPDATE SET due_at = excluded.due_at WHERE NOT u.waiting
$$;
