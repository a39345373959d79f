-- The number of a job's next batch, which is due from now on, in the place of one that has finished; null: there is none,
-- or it was started in the place of this one already.
CREATE OR REPLACE FUNCTION claude_batch.start_next_batch(job text, of_batch integer) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
  found_id bigint := claude_batch.lock_job(job);
  next_batch integer;
  total integer;
BEGIN
  PERFORM FROM claude_batch.records r
  WHERE r.job = found_id AND batch = of_batch AND lane = -1 AND record ->> 'made_room' IS DISTINCT FROM 'true';
  IF NOT FOUND THEN
    RETURN null;
  END IF;
  SELECT (record ->> 'admitted')::integer, (record ->> 'batches')::integer INTO next_batch, total
  FROM claude_batch.records r WHERE r.job = found_id AND batch = -1 AND lane = -1 FOR UPDATE;
  IF next_batch < total THEN
    PERFORM claude_batch.add_units(ARRAY[job], ARRAY[next_batch], ARRAY[-1], claude_batch.clock());
    UPDATE claude_batch.records r SET record = record || jsonb_build_object('admitted', (next_batch + 1)::text)
    WHERE r.job = found_id AND batch = -1 AND lane = -1;
  END IF;
  UPDATE claude_batch.records r SET record = record || '{"made_room": "true"}'
  WHERE r.job = found_id AND batch = of_batch AND lane = -1;
  RETURN CASE WHEN next_batch < total THEN next_batch END;
END
$$;
