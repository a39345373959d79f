-- Remember by how many seconds a message is late; what was usual before is forgotten message by message.
-- Where all come within a second, nothing is written: one row for all workers is not to be written with each message.
CREATE OR REPLACE FUNCTION claude_batch.record_lateness(
  late double precision, share_left double precision, most double precision
) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
  usual double precision := claude_batch.usual_lateness();
BEGIN
  late := least(greatest(late, usual * share_left), most);
  IF greatest(late, usual) < 1 THEN
    RETURN;
  END IF;
  PERFORM FROM claude_batch.flags WHERE name = 'late' FOR UPDATE SKIP LOCKED;
  IF NOT FOUND AND usual > 0 THEN
    RETURN;  -- somebody else writes it at this moment
  END IF;
  INSERT INTO claude_batch.flags (name, value, expires_at)
  VALUES ('late', convert_to(late::text, 'UTF8'), claude_batch.clock() + 120)
  ON CONFLICT (name) DO UPDATE SET value = excluded.value, expires_at = excluded.expires_at;
END
$$;
