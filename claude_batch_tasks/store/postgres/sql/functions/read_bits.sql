-- All bits of a name, of a job or a batch of it; see get_bits.
CREATE OR REPLACE FUNCTION claude_batch.read_bits(job text, of_batch integer, of_name text) RETURNS bytea
LANGUAGE sql STABLE AS $$
  SELECT claude_batch.get_bits(claude_batch.find_job(job), of_batch, of_name)
$$;
