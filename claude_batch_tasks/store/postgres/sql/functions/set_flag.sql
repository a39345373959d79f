-- Give a flag a value for so many seconds, unless it has one; whether it was given that.
CREATE OR REPLACE FUNCTION claude_batch.set_flag(flag text, new_value bytea, seconds double precision) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
  now double precision := claude_batch.clock();
BEGIN
  INSERT INTO claude_batch.flags AS f (name, value, expires_at) VALUES (flag, new_value, now + seconds)
  ON CONFLICT (name) DO UPDATE SET value = excluded.value, expires_at = excluded.expires_at WHERE f.expires_at <= now;
  RETURN FOUND;
END
$$;
