-- Lock asks, and before them what they reserve of cost limits and the pools they are in, in the order in which all do it.
CREATE OR REPLACE FUNCTION claude_batch.lock_asks(ids text[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
  locked text[] := '{}';
  found_pools text[];
BEGIN
  PERFORM FROM claude_batch.costs WHERE (name, seconds, start) IN (
    SELECT name, seconds, start FROM claude_batch.asks WHERE ask_id = ANY (ids) AND reserved > 0
  ) ORDER BY name, seconds, start FOR NO KEY UPDATE;
  LOOP
    found_pools := ARRAY(SELECT DISTINCT job_id FROM claude_batch.asks WHERE ask_id = ANY (ids) ORDER BY job_id);
    -- While it waited for one pool, asks may have moved to another.
    EXIT WHEN found_pools <@ locked;
    PERFORM FROM claude_batch.pools WHERE job_id = ANY (found_pools) ORDER BY job_id FOR NO KEY UPDATE;
    locked := locked || found_pools;
  END LOOP;
  PERFORM FROM claude_batch.asks WHERE ask_id = ANY (ids) ORDER BY ask_id FOR NO KEY UPDATE;
END
$$;
