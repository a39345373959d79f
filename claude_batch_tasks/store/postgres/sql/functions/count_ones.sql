-- How many bits of a name are set.
CREATE OR REPLACE FUNCTION claude_batch.count_ones(of_job bigint, of_batch integer, of_name text) RETURNS bigint
LANGUAGE sql STABLE AS $$
  SELECT coalesce(sum(b.ones), 0)::bigint FROM claude_batch.bits b
  WHERE b.job = of_job AND b.batch = of_batch AND b.name = of_name
$$;
