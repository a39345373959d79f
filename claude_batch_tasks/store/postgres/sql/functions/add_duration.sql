-- Remember how long a batch of so many requests took, under each of these names, and forget all but the last so many.
CREATE OR REPLACE FUNCTION claude_batch.add_duration(
  names text[], of_requests integer, took double precision, most integer, ttl double precision
) RETURNS void
LANGUAGE sql VOLATILE AS $$
  INSERT INTO claude_batch.past_durations AS p (name, requests, seconds, expires_at)
  SELECT name, ARRAY[of_requests], ARRAY[took], claude_batch.clock() + ttl
  FROM (SELECT DISTINCT unnest(names) AS name ORDER BY 1) AS named
  ON CONFLICT (name) DO UPDATE SET
    requests = (excluded.requests || p.requests)[:most], seconds = (excluded.seconds || p.seconds)[:most],
    expires_at = excluded.expires_at
$$;
