-- Take up a job again that has ended: change its record and those of batches, which get positions and are due now, if they
-- are to be. Without batches, the job itself is due. Nothing of it expires any more. False: it has not ended, or is gone.
CREATE OR REPLACE FUNCTION claude_batch.resume_job(
  job text, changes jsonb, batches integer[], due boolean[], positions bigint[], batch_changes text[]
) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
  found_id bigint := claude_batch.lock_job(job);
  now double precision := claude_batch.clock();
  finished integer;
BEGIN
  PERFORM FROM claude_batch.records r
  WHERE r.job = found_id AND batch = -1 AND lane = -1 AND claude_batch.has_ended(record);
  IF NOT FOUND OR cardinality(batches) <> (
    SELECT count(*) FROM claude_batch.records r WHERE r.job = found_id AND batch = ANY (batches) AND lane = -1
  ) THEN
    RETURN false;
  END IF;
  INSERT INTO claude_batch.units AS u (job_id, batch, lane, position, due_at, waiting)
  SELECT * FROM (
    SELECT job, -1, -1, -1::bigint, CASE WHEN batches = '{}' THEN now END, batches = '{}'
    UNION ALL
    SELECT job, number, -1, at, CASE WHEN is_due THEN now END, is_due
    FROM unnest(batches, due, positions) AS resumed (number, is_due, at)
  ) AS resumed (job_id, batch, lane, position, due_at, waiting)
  ORDER BY job_id, batch, lane
  ON CONFLICT (job_id, batch, lane) DO UPDATE SET
    position = excluded.position, owner = null, lease_ends = null, step_failures = 0, step_failure = null,
    resent = 0, resent_at = null, missed = null,
    due_at = coalesce(excluded.due_at, u.due_at), waiting = excluded.waiting OR u.waiting;
  SELECT count(*) INTO finished FROM claude_batch.records r
  WHERE r.job = found_id AND batch = ANY (batches) AND lane = -1 AND record ->> 'done' = 'true';
  UPDATE claude_batch.records r SET record = record || (changed::jsonb - 'step_failures' - 'step_failure')
  FROM unnest(batches, batch_changes) AS resumed (number, changed)
  WHERE r.job = found_id AND batch = number AND lane = -1;
  UPDATE claude_batch.records r
  SET record = record || changes || jsonb_build_object(
    'through', (coalesce(changes ->> 'through', record ->> 'through')::integer - finished)::text
  )
  WHERE r.job = found_id AND batch = -1 AND lane = -1;
  UPDATE claude_batch.jobs SET expires_at = null WHERE id = found_id;
  PERFORM claude_batch.announce_due(now);
  RETURN true;
END
$$;
