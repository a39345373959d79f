-- Until when no call of a name is to be made; 0: it may be made.
CREATE OR REPLACE FUNCTION claude_batch.paused_until(call text) RETURNS double precision
LANGUAGE sql STABLE AS $$
  SELECT coalesce((SELECT until FROM claude_batch.pauses WHERE name = call), 0)
$$;
