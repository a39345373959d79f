-- By how many seconds messages are late these days.
CREATE OR REPLACE FUNCTION claude_batch.usual_lateness() RETURNS double precision
LANGUAGE sql STABLE AS $$
  SELECT coalesce((
    SELECT convert_from(value, 'UTF8')::double precision FROM claude_batch.flags
    WHERE name = 'late' AND expires_at > claude_batch.clock()
  ), 0)
$$;
