-- Give a flag a value for so many seconds, in the place of the one that it has.
CREATE OR REPLACE FUNCTION claude_batch.put_flag(flag text, new_value bytea, ttl double precision) RETURNS void
LANGUAGE sql AS $$
  INSERT INTO claude_batch.flags (name, value, expires_at) VALUES (flag, new_value, claude_batch.clock() + ttl)
  ON CONFLICT (name) DO UPDATE SET value = excluded.value, expires_at = excluded.expires_at
$$;
