-- The value of a flag; null: it has none, or that has expired.
CREATE OR REPLACE FUNCTION claude_batch.get_flag(flag text) RETURNS bytea
LANGUAGE sql STABLE AS $$
  SELECT value FROM claude_batch.flags WHERE name = flag AND expires_at > claude_batch.clock()
$$;
