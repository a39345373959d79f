-- Give a flag a value for so many seconds, unless it has one; return whether it had none.
CREATE OR REPLACE FUNCTION claude_batch.set_flag(flag text, new_value bytea, ttl double precision) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
  -- First without a lock: mostly it is there.
  IF EXISTS (SELECT FROM claude_batch.flags WHERE name = flag AND expires_at > claude_batch.clock()) THEN
    RETURN false;
  END IF;
  INSERT INTO claude_batch.flags AS f (name, value, expires_at) VALUES (flag, new_value, claude_batch.clock() + ttl)
  ON CONFLICT (name) DO UPDATE SET value = excluded.value, expires_at = excluded.expires_at
  WHERE f.expires_at <= claude_batch.clock();
  RETURN FOUND;
END
$$;
