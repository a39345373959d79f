-- How many bits are set. (bit_count would say it from PostgreSQL 14 on.)
CREATE OR REPLACE FUNCTION claude_batch.count_bits(bits bit) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT length(replace(bits::text, '0', ''))
$$;
