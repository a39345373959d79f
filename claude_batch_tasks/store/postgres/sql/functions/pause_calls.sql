-- Let no call of a name be made until a moment, or that which was said before, if it is later.
CREATE OR REPLACE FUNCTION claude_batch.pause_calls(call text, at double precision) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO claude_batch.pauses AS p (name, until) VALUES (call, at)
  ON CONFLICT (name) DO UPDATE SET until = excluded.until WHERE p.until < excluded.until;
  DELETE FROM claude_batch.pauses WHERE name IN (
    SELECT name FROM claude_batch.pauses WHERE until < claude_batch.clock() - 3600 FOR UPDATE SKIP LOCKED
  );
END
$$;
