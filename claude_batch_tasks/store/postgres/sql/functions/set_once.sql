-- Give a field of a job's record a value, as JSON text, if it has none; the value that it has, null in JSON if there is no job.
CREATE OR REPLACE FUNCTION claude_batch.set_once(job text, changes jsonb) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
  found_id bigint := claude_batch.find_job(job);
  field text := jsonb_object_keys(changes);
BEGIN
  UPDATE claude_batch.records r SET record = record || changes
  WHERE r.job = found_id AND batch = -1 AND lane = -1 AND coalesce(record ->> field, 'null') = 'null';
  RETURN coalesce(
    (SELECT record ->> field FROM claude_batch.records r WHERE r.job = found_id AND batch = -1 AND lane = -1), 'null'
  );
END
$$;
