-- All bits of a name up to the last segment that is there; the first position is the highest bit of the first byte.
CREATE OR REPLACE FUNCTION claude_batch.get_bits(of_job bigint, of_batch integer, of_name text) RETURNS bytea
LANGUAGE sql STABLE AS $$
  -- In front of the bits, bit_send puts four bytes: how many they are.
  SELECT coalesce(string_agg(substring(bit_send(coalesce(b.bits, 0::bit(4096))) FROM 5), '' ORDER BY number), '')
  FROM generate_series(0, (
    SELECT max(last.segment) FROM claude_batch.bits last
    WHERE last.job = of_job AND last.batch = of_batch AND last.name = of_name
  )) AS number
  LEFT JOIN claude_batch.bits b
  ON b.job = of_job AND b.batch = of_batch AND b.name = of_name AND b.segment = number
$$;
