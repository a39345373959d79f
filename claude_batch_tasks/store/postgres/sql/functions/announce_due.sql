-- Wake those who send the messages of units that wait, if none waits that is due earlier: they expect none before that.
CREATE OR REPLACE FUNCTION claude_batch.announce_due(at double precision) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM claude_batch.units WHERE waiting AND due_at < at) THEN
    PERFORM pg_notify('claude_batch_due', '');
  END IF;
END
$$;
