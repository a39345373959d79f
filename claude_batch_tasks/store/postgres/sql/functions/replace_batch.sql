-- Write the record of a batch in the place of one that is gone, and count the job's finished batches again; false: it is
-- not gone, or its job is.
CREATE OR REPLACE FUNCTION claude_batch.replace_batch(job text, of_batch integer, new_record jsonb, batches integer)
RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
  found_id bigint := claude_batch.lock_job(job);
  finished integer;
  state text;
BEGIN
  IF found_id IS NULL THEN
    RETURN false;
  END IF;
  INSERT INTO claude_batch.records (job, batch, lane, record) VALUES (found_id, of_batch, -1, new_record)
  ON CONFLICT DO NOTHING;
  IF NOT FOUND THEN
    RETURN false;
  END IF;
  SELECT count(*) INTO finished FROM claude_batch.records r
  WHERE r.job = found_id AND batch >= 0 AND batch < batches AND lane = -1 AND record ->> 'done' = 'true';
  UPDATE claude_batch.records r SET record = record || jsonb_build_object('through', finished::text)
  WHERE r.job = found_id AND batch = -1 AND lane = -1
  RETURNING record ->> 'state' INTO state;
  IF state = '"running"' THEN
    -- Its chain has ended with its record: the job's last message is missed, and sent.
    PERFORM claude_batch.add_units(ARRAY[job], ARRAY[-1], ARRAY[-1], claude_batch.clock());
  END IF;
  RETURN true;
END
$$;
