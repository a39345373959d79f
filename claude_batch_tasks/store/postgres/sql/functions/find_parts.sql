-- Whether the parts of a batch, or of a job (batch -1), are there, in the order of their names: body, ids, sizes, index,
-- outcomes; of a download: rows:ATTEMPT, and likewise pieces, eligible, again, index; of a job: batch:NUMBER.
CREATE OR REPLACE FUNCTION claude_batch.find_parts(job text, of_batch integer, names text[]) RETURNS SETOF boolean
LANGUAGE plpgsql STABLE AS $$
DECLARE
  of_job bigint := claude_batch.find_job(job);
  name text;
  what text;
  wanted integer;
BEGIN
  FOREACH name IN ARRAY names LOOP
    what := split_part(name, ':', 1);
    wanted := nullif(split_part(name, ':', 2), '')::integer;
    RETURN NEXT CASE what
      WHEN 'body' THEN EXISTS (
        SELECT FROM claude_batch.payload_chunks p WHERE p.job = of_job AND p.batch = of_batch AND p.body IS NOT NULL
      )
      WHEN 'ids' THEN EXISTS (
        SELECT FROM claude_batch.payload_chunks p WHERE p.job = of_job AND p.batch = of_batch AND p.ids IS NOT NULL
      )
      WHEN 'index' THEN EXISTS (
        SELECT FROM claude_batch.index_parts i
        WHERE i.job = of_job AND i.batch = of_batch AND i.attempt = coalesce(wanted, -1)
      )
      WHEN 'outcomes' THEN EXISTS (
        SELECT FROM claude_batch.outcomes o WHERE o.job = of_job AND o.batch = of_batch
      )
      WHEN 'batch' THEN EXISTS (
        SELECT FROM claude_batch.records r WHERE r.job = of_job AND r.batch = wanted AND r.lane = -1
      )
      WHEN 'rows' THEN EXISTS (
        SELECT FROM claude_batch.result_chunks c
        WHERE c.job = of_job AND c.batch = of_batch AND c.attempt = wanted AND c.copy = ''
      )
      ELSE EXISTS (
        SELECT FROM claude_batch.result_attempts a
        WHERE a.job = of_job AND a.batch = of_batch AND a.attempt = wanted AND a.copy = ''
          AND CASE what WHEN 'pieces' THEN a.pieces WHEN 'eligible' THEN a.eligible WHEN 'again' THEN a.again END
            IS NOT NULL
      )
    END;
  END LOOP;
END
$$;
