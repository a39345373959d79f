-- The bits of one segment.
CREATE OR REPLACE FUNCTION claude_batch.get_segment(
  of_job bigint, of_batch integer, of_name text, of_segment integer
) RETURNS bit
LANGUAGE sql STABLE AS $$
  SELECT coalesce((
    SELECT b.bits FROM claude_batch.bits b
    WHERE b.job = of_job AND b.batch = of_batch AND b.name = of_name AND b.segment = of_segment
  ), 0::bit(4096))
$$;
