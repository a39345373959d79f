-- Append to a job's history. Of a long one, the first so many and the last so many are stored.
CREATE OR REPLACE FUNCTION claude_batch.append_event(job text, new_event text, first integer, last integer) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
  of_job bigint := claude_batch.lock_job(job);
  next integer;
BEGIN
  IF of_job IS NULL THEN
    RETURN;
  END IF;
  SELECT coalesce(max(h.number) + 1, 0) INTO next FROM claude_batch.history h WHERE h.job = of_job;
  INSERT INTO claude_batch.history (job, number, event) VALUES (of_job, next, new_event);
  DELETE FROM claude_batch.history h WHERE h.job = of_job AND h.number = next - last AND h.number >= first;
END
$$;
