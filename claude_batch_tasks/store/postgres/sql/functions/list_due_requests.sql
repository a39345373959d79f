-- Some requests of a batch that are due, and if none is, the seconds until one is; null: none waits.
CREATE OR REPLACE FUNCTION claude_batch.list_due_requests(
  of_job text, of_batch integer, wanted integer, OUT positions integer[], OUT seconds double precision
)
LANGUAGE plpgsql AS $$
DECLARE
  found_id bigint := claude_batch.find_job(of_job);
  now double precision := claude_batch.clock();
  first integer;
  last integer;
  start integer;
BEGIN
  SELECT min(c.position), max(c.position) INTO first, last FROM claude_batch.calls c
  WHERE c.job = found_id AND c.batch = of_batch AND c.due_at <= now;
  IF first IS NULL THEN
    SELECT min(greatest(c.due_at - now, 0)) INTO seconds FROM claude_batch.calls c
    WHERE c.job = found_id AND c.batch = of_batch AND c.due_at IS NOT NULL;
  ELSE
    -- Neighbours, which are in the same piece, from anywhere: others ask as well, and the first may have to wait. The first
    -- and the last are as likely among them as any.
    start := first + 1 - wanted + floor(random() * (last - first + wanted))::integer;
    positions := ARRAY(
      SELECT c.position FROM claude_batch.calls c
      WHERE c.job = found_id AND c.batch = of_batch AND c.due_at <= now AND c.position >= start
      ORDER BY c.position LIMIT wanted - greatest(first - start, 0)
    );
    seconds := 0;
  END IF;
END
$$;
