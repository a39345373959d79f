-- Lock a rate limit until the end of the transaction; return what is known of it. An hour after its last call that is nothing.
CREATE OR REPLACE FUNCTION claude_batch.lock_pace(of_pace text) RETURNS claude_batch.paces
LANGUAGE plpgsql AS $$
DECLARE
  ends double precision := claude_batch.clock() + 3600;
  known claude_batch.paces;
BEGIN
  INSERT INTO claude_batch.paces (pace, expires_at) VALUES (of_pace, ends)
  ON CONFLICT (pace) DO UPDATE SET pace = excluded.pace WHERE false;  -- which locks it
  UPDATE claude_batch.paces SET
    sent = DEFAULT, input = DEFAULT, output = DEFAULT, synced = DEFAULT, at = DEFAULT, limits = DEFAULT,
    remaining = DEFAULT, allowed = DEFAULT, cut_at = DEFAULT, in_a_row = DEFAULT, usual_output = DEFAULT,
    expires_at = ends
  WHERE pace = of_pace AND expires_at <= claude_batch.clock();
  SELECT * INTO known FROM claude_batch.paces WHERE pace = of_pace;
  RETURN known;
END
$$;
